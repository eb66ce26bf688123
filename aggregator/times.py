"""Times as this project stores and asks for them: their bounds, spans of them, and names of time zones."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Every event starts from EPOCH up to, not including, this. ClickHouse's DateTime (buckets of rollups) and DateTime64
# (rows) both hold these times, and the ends of requests that start within them.
END_OF_TIME = datetime(2100, 1, 1, tzinfo=UTC)
TIMEZONES = frozenset(available_timezones())


def micros(moment: datetime) -> int:
    """Microseconds since 1970. A moment without a zone is in UTC, as the ClickHouse client returns it."""
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


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
