"""Buckets of time: their width, where each starts, its key and its label."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from aggregator.rollups.measures import WIDTH_SECONDS, Bucket
from api.wire_types import rfc3339

# How many buckets `auto` makes at most, about, and how many a chart may have.
AUTO_BUCKETS = 100
MAX_BUCKETS = 1_000
DAY_SECONDS = WIDTH_SECONDS[Bucket.DAY]

CLOCK_SECONDS = {bucket: seconds for bucket, seconds in WIDTH_SECONDS.items() if seconds < DAY_SECONDS}
ABOUT_SECONDS = {
    **WIDTH_SECONDS,
    Bucket.WEEK: 7 * DAY_SECONDS,
    Bucket.MONTH: 30 * DAY_SECONDS,
    Bucket.YEAR: 365 * DAY_SECONDS,
}
LABEL_LENGTHS = {Bucket.MONTH: len("2026-01"), Bucket.YEAR: len("2026")}


def about_count(bucket: Bucket, first: datetime, last: datetime) -> float:
    """How many buckets there are from `first` to `last`, or one or two more."""
    return (last - first).total_seconds() / ABOUT_SECONDS[bucket] + 1


def pick(first: datetime, last: datetime, most_days: int = AUTO_BUCKETS) -> Bucket:
    """The narrowest bucket of which at most about AUTO_BUCKETS cover the range, or `most_days` from days on."""
    for bucket, seconds in ABOUT_SECONDS.items():
        if about_count(bucket, first, last) <= (AUTO_BUCKETS if seconds < DAY_SECONDS else most_days):
            return bucket
    return Bucket.YEAR


def _first_date(bucket: Bucket, day: date) -> date:
    if bucket is Bucket.WEEK:
        return day - timedelta(days=day.weekday())
    if bucket is Bucket.MONTH:
        return day.replace(day=1)
    return day.replace(month=1, day=1) if bucket is Bucket.YEAR else day


def _next_date(bucket: Bucket, day: date) -> date:
    days = {Bucket.DAY: 1, Bucket.WEEK: 7, Bucket.MONTH: 31, Bucket.YEAR: 366}[bucket]
    return _first_date(bucket, day + timedelta(days=days))


def starts(bucket: Bucket, first: datetime, last: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The start of every bucket from the one of `first` to the one of `last`, as aware times of the zone."""
    local = first.astimezone(zone)
    if bucket in CLOCK_SECONDS:
        width = timedelta(seconds=CLOCK_SECONDS[bucket])
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond) % width
        start = first.astimezone(UTC) - past
        while start <= last:
            yield start.astimezone(zone)
            start += width
        return
    day, end = _first_date(bucket, local.date()), last.astimezone(zone).date()
    while day <= end:
        yield datetime.combine(day, time(), zone)
        day = _next_date(bucket, day)


def key_of(bucket: Bucket, start: datetime) -> str:
    """ISO 8601: the date of the first day, or the instant for what is shorter than a day."""
    if bucket not in CLOCK_SECONDS:
        return start.date().isoformat()
    return rfc3339(start, "seconds") if start.utcoffset() == timedelta() else start.isoformat(timespec="seconds")


def label_of(bucket: Bucket, start: datetime) -> str:
    if bucket in CLOCK_SECONDS:
        return start.strftime("%Y-%m-%d %H:%M:%S" if bucket is Bucket.SECOND else "%Y-%m-%d %H:%M")
    return start.date().isoformat()[: LABEL_LENGTHS.get(bucket)]
