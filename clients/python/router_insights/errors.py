"""Every error that this package raises, but for TypeError and ValueError of wrong arguments."""

from collections.abc import Sequence
from dataclasses import dataclass


class RouterInsightsError(Exception):
    """Its message is a sentence for people."""


class ApiConnectionError(RouterInsightsError):
    """The API cannot be reached, or the connection broke. The message names the address."""


class ApiTimeoutError(ApiConnectionError):
    """The API did not answer in time. It may still have done what was asked."""


class UnexpectedAnswerError(RouterInsightsError):
    """The answer is none that this version can read: another service, or a much newer one."""


@dataclass(frozen=True)
class ErrorDetail:
    """What is wrong where: the parameter, or the path inside the body, empty for all of it."""

    field: str
    message: str
    allowed: tuple[str, ...] | None = None
    """Every allowed value, where they can be listed."""
    line: int | None = None
    """Line of the events that were published, from 1."""


class KafkaUnavailableError(RouterInsightsError):
    """Kafka does not answer or did not take events: try again later.

    `failed` counts the events that were dropped and `failed_keys` are their keys, in order. Such an event is not in
    Kafka, unless Kafka stored it and only its answer was lost.
    """

    def __init__(self, message: str, failed_keys: list[bytes | None] | None = None) -> None:
        super().__init__(message)
        self.failed_keys = failed_keys or []

    @property
    def failed(self) -> int:
        return len(self.failed_keys)


class InvalidEventError(RouterInsightsError, ValueError):
    """An event is not valid, and was not taken; `details` names each wrong field."""

    def __init__(self, details: Sequence[ErrorDetail]) -> None:
        super().__init__("; ".join(f"{one.field or 'the event'}: {one.message}" for one in details))
        self.details = tuple(details)


class EventTooLargeError(RouterInsightsError, ValueError):
    """An event is larger than the emitter may send; nothing of it was sent."""


class ApiError(RouterInsightsError):
    """The API answered with an error.

    `status` is HTTP's, `code` the API's word for programs ("" on paths of request analytics, whose errors have none),
    `details` names each wrong field, `request_id` finds the request in the log of the API. `retry_after` is in
    seconds, None where the API names none.
    """

    def __init__(
        self,
        message: str,
        status: int,
        code: str = "",
        details: Sequence[ErrorDetail] = (),
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.details = tuple(details)
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequestError(ApiError):
    """400, 413, 415 or 422: what was asked or sent is not valid; the message names the field."""


class AuthenticationError(ApiError):
    """401: the key is missing or wrong."""


class PermissionDeniedError(ApiError):
    """403: the key may not do this."""


class NotFoundError(ApiError):
    """404: there is no such log or budget, or the key may not see it."""


class RateLimitedError(ApiError):
    """429: too many requests with this key; `retry_after` says when to try again."""


class UnavailableError(ApiError):
    """503: a part behind the API is away, or (`resource_exhausted`) the question needs more than it may use."""


class DeadlineExceededError(ApiError):
    """504: the question ran into its time limit; narrow it."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
    503: UnavailableError,
    504: DeadlineExceededError,
}
