"""Times as this project stores and asks for them: their bounds, spans, how they are written, and time zones."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from router_insights.emitter.contract import END_OF_TIME, EPOCH, RFC3339, START_OF_TIME

__all__ = [
    "END_OF_TIME",
    "EPOCH",
    "EVERYTHING",
    "LAST_END",
    "RFC3339",
    "START_OF_TIME",
    "TIMEZONES",
    "Span",
    "Timezone",
    "from_micros",
    "micros",
    "request_time",
    "within_bounds",
]

# Durations are UInt32 milliseconds.
LAST_END = END_OF_TIME + timedelta(milliseconds=2**32)
TIMEZONES = frozenset(available_timezones())


def micros(moment: datetime) -> int:
    """Microseconds since 1970. A moment without a zone is in UTC, as the ClickHouse client returns it."""
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


def within_bounds(moment: datetime | int) -> int:
    """Microseconds since 1970, of a moment or of such a number, moved into the bounds that all stored times lie in."""
    number = moment if isinstance(moment, int) else micros(moment)
    return min(max(number, 0), micros(LAST_END))


def from_micros(number: int) -> datetime:
    """The moment so many microseconds after 1970, within the bounds that all stored times lie in."""
    return EPOCH + timedelta(microseconds=within_bounds(number))


def request_time(moment: datetime) -> datetime:
    """In UTC, moved to where requests start: a bound that is moved selects the same rows."""
    return min(max(moment, EPOCH), END_OF_TIME).astimezone(UTC)


@dataclass(frozen=True)
class Span:
    """A half-open range of time, `start <= t < end`; None is unbounded."""

    start: datetime | None = None
    end: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self.start is not None and self.end is not None and self.start >= self.end


EVERYTHING = Span()


def _check_timezone(name: str) -> str:
    if name not in TIMEZONES:
        raise PydanticCustomError("timezone", "must be the name of an IANA time zone, like Europe/Berlin")
    return name


Timezone = Annotated[str, AfterValidator(_check_timezone)]
