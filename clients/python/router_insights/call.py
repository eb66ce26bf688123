"""One question to the API: how it is sent, and how its answer is read. Nothing here does I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Generic, TypeVar

import msgspec

from router_insights.errors import BY_STATUS, ApiError, ErrorDetail, UnexpectedAnswerError

Answer = TypeVar("Answer")

JSON, NDJSON = "application/json", "application/x-ndjson"


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request, and the type of its answer."""

    method: str
    path: str
    answer: type[Answer]
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = JSON
    # False where a 503 may mean that part of it was done.
    may_repeat: bool = True

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer. Raises ApiError for a status that is no success, and UnexpectedAnswerError."""
        if not 200 <= status < 300:
            raise error_of(status, headers, body)
        return decode(body, self.answer, self.path)


def decode(text: bytes | str, answer: type[Answer], source: str) -> Answer:
    """Raises UnexpectedAnswerError for JSON of another shape. Unknown properties are ignored."""
    try:
        return msgspec.json.decode(text, type=answer)
    except msgspec.DecodeError as error:
        raise UnexpectedAnswerError(f"The answer of {source} cannot be read as {answer.__name__}: {error}") from error


class _Detail(msgspec.Struct):
    field: str = ""
    message: str = ""
    allowed: tuple[str, ...] | None = None
    line: int | None = None


class _Failure(msgspec.Struct):
    """The two shapes of errors: `{code, message, details}`, and `{success, message}` of request analytics."""

    message: str
    code: str = ""
    details: list[_Detail] = []


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    try:
        failure = msgspec.json.decode(body, type=_Failure)
    except msgspec.DecodeError:
        # Of a proxy, most likely.
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "an unknown status"
        failure = _Failure(message=f"{status} {phrase}, with a body that is no error of router-insights")
    details = [ErrorDetail(one.field, one.message, one.allowed, one.line) for one in failure.details]
    return BY_STATUS.get(status, ApiError)(
        _sentence(failure.message, details),
        status,
        failure.code,
        details,
        headers.get("x-request-id", ""),
        _seconds(headers.get("retry-after", "")),
    )


def _sentence(message: str, details: list[ErrorDetail]) -> str:
    """The message, with the fields that it does not name itself: those of events."""
    places = [(f"line {one.line}: " if one.line else "") + f"{one.field}: {one.message}" for one in details]
    unnamed = [place for place, one in zip(places, details, strict=True) if one.field not in message]
    return " ".join([message, "; ".join(unnamed)]) if unnamed else message


def _seconds(retry_after: str) -> float | None:
    """Seconds, or a date as proxies send it."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds())
