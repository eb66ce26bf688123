"""Errors of the API as those of the Connect protocol: a code, a sentence, and details that programs can read."""

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf import Message
from protobuf.wkt import Duration

from api.connect.generated.google.rpc.error_details_pb import BadRequest, RetryInfo
from api.errors import ApiError

CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    413: Code.RESOURCE_EXHAUSTED,
    # The content encoding; media types are negotiated by the protocol itself.
    415: Code.UNIMPLEMENTED,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELED,
    500: Code.INTERNAL,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
# Names and values of the request stand in errors, and errors may stand in headers.
MAX_LENGTH = 1000


def connect_error(error: ApiError) -> ConnectError:
    code = (
        Code.RESOURCE_EXHAUSTED
        if error.code == Code.RESOURCE_EXHAUSTED.value
        else CODES.get(error.status, Code.UNKNOWN)
    )
    return ConnectError(code, error.message[:MAX_LENGTH], _details(error))


def _details(error: ApiError) -> list[Message]:
    details: list[Message] = []
    if error.details:
        violations = [
            BadRequest.FieldViolation(field=detail.field[:MAX_LENGTH], description=detail.message[:MAX_LENGTH])
            for detail in error.details
        ]
        details.append(BadRequest(field_violations=violations))
    if (seconds := error.retry_after_seconds) is not None:
        details.append(RetryInfo(retry_delay=Duration(seconds=seconds)))
    return details
