"""Periods of budgets: whole hours, days, weeks and months of a time zone, as spans of UTC."""

from bisect import bisect_left
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from aggregator.times import EPOCH

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def minutes(moment: datetime) -> int:
    """Since 1970; the minute that holds the moment."""
    return (moment - EPOCH) // MINUTE


class BudgetPeriod(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


# How far back a rolling period reaches.
LENGTHS = {BudgetPeriod.HOUR: HOUR, BudgetPeriod.DAY: DAY, BudgetPeriod.WEEK: 7 * DAY, BudgetPeriod.MONTH: 30 * DAY}


def _midnight(day: datetime, zone: ZoneInfo) -> datetime:
    """The first instant of a local day. Where a clock change skips midnight, the offset before it gives the
    instant at which the day begins an hour late; where midnight comes twice, it is the first."""
    return datetime.combine(day, time(0), zone).astimezone(UTC)


def _hour(moment: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """A local hour, as long as the clock shows it without a change: where clocks change within an hour (Chatham, Lord
    Howe) each side of the change is an hour of its own, and so is each of an hour that comes twice."""
    local = moment.astimezone(zone)
    start = moment.astimezone(UTC) - (local.replace(tzinfo=UTC) - EPOCH) % HOUR

    def is_same(second: int) -> bool:
        return (start + timedelta(seconds=second)).astimezone(zone).utcoffset() == local.utcoffset()

    now = (moment - start) // timedelta(seconds=1)
    first = bisect_left(range(now), True, key=is_same)
    end = bisect_left(range(now, 3600), True, key=lambda second: not is_same(second)) + now
    return start + timedelta(seconds=first), start + timedelta(seconds=end)


# Many budgets need it for the same moment.
@lru_cache(maxsize=256)
def span_of(period: BudgetPeriod, timezone: str, moment: datetime) -> tuple[datetime, datetime]:
    """The calendar period that holds `moment` (aware), `start <= moment < end`, both in UTC.

    Weeks begin on Monday. Days of 23 or 25 hours are that long here too.
    """
    zone = ZoneInfo(timezone)
    if period is BudgetPeriod.HOUR:
        return _hour(moment, zone)
    today = moment.astimezone(zone).replace(tzinfo=None)
    if period is BudgetPeriod.DAY:
        first, following = today, today + DAY
    elif period is BudgetPeriod.WEEK:
        first = today - today.weekday() * DAY
        following = first + 7 * DAY
    else:
        first = today.replace(day=1)
        following = (first + 31 * DAY).replace(day=1)
    return _midnight(first, zone), _midnight(following, zone)


def rolling_span(period: BudgetPeriod, moment: datetime) -> tuple[datetime, datetime]:
    """The rolling period up to `moment`, from a whole minute on; later requests belong to it too."""
    start = moment.astimezone(UTC).replace(second=0, microsecond=0) - LENGTHS[period]
    return start, datetime.max.replace(tzinfo=UTC)
