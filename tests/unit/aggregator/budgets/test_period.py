"""Periods of budgets at the edges of days and months, where clocks change, and as a partition of time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.budgets.period import LENGTHS, BudgetPeriod, rolling_span, span_of

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Cairo",
    "America/Havana", "Pacific/Apia", "America/St_Johns", "Pacific/Chatham",
)  # fmt: skip


# From 2005 to 2040.
MOMENTS = st.integers(1_104_537_600, 2_208_988_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("period", "zone", "moment", "start", "end"),
    [
        pytest.param(
            BudgetPeriod.DAY, "Europe/Berlin", "2026-03-29T12:00:00+02:00", "2026-03-29T00:00:00+01:00",
            "2026-03-30T00:00:00+02:00", id="a day of 23 hours"),
        pytest.param(
            BudgetPeriod.DAY, "Europe/Berlin", "2026-10-25T12:00:00+01:00", "2026-10-25T00:00:00+02:00",
            "2026-10-26T00:00:00+01:00", id="a day of 25 hours"),
        pytest.param(
            BudgetPeriod.DAY, "Africa/Cairo", "2026-04-24T05:00:00+03:00", "2026-04-24T01:00:00+03:00",
            "2026-04-25T00:00:00+03:00", id="a day without midnight"),
        pytest.param(
            BudgetPeriod.DAY, "America/Havana", "2026-11-01T12:00:00-05:00", "2026-11-01T00:00:00-04:00",
            "2026-11-02T00:00:00-05:00", id="a day with two midnights"),
        pytest.param(
            BudgetPeriod.DAY, "Pacific/Apia", "2011-12-29T12:00:00-10:00", "2011-12-29T00:00:00-10:00",
            "2011-12-31T00:00:00+14:00", id="the day before one that was skipped"),
        pytest.param(
            BudgetPeriod.MONTH, "Europe/Berlin", "2026-03-31T23:59:59+02:00", "2026-03-01T00:00:00+01:00",
            "2026-04-01T00:00:00+02:00", id="a month in which clocks go forward"),
        pytest.param(
            BudgetPeriod.MONTH, "America/New_York", "2026-11-01T03:59:59+00:00", "2026-10-01T00:00:00-04:00",
            "2026-11-01T00:00:00-04:00", id="the last second of October in New York"),
        pytest.param(
            BudgetPeriod.MONTH, "America/New_York", "2026-11-01T04:00:00+00:00", "2026-11-01T00:00:00-04:00",
            "2026-12-01T00:00:00-05:00", id="the first second of November in New York"),
        pytest.param(
            BudgetPeriod.MONTH, "UTC", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00+00:00",
            "2027-01-01T00:00:00+00:00", id="the last second of a year"),
        pytest.param(
            BudgetPeriod.WEEK, "Europe/Berlin", "2026-03-29T23:00:00+02:00", "2026-03-23T00:00:00+01:00",
            "2026-03-30T00:00:00+02:00", id="a week that ends with a short day"),
        pytest.param(
            BudgetPeriod.WEEK, "America/New_York", "2026-11-01T23:59:59-05:00", "2026-10-26T00:00:00-04:00",
            "2026-11-02T00:00:00-05:00", id="a week that ends with a long day"),
        pytest.param(
            BudgetPeriod.MONTH, "Europe/Berlin", "2026-10-31T23:59:59+01:00", "2026-10-01T00:00:00+02:00",
            "2026-11-01T00:00:00+01:00", id="a month in which clocks go back"),
        pytest.param(
            BudgetPeriod.MONTH, "America/St_Johns", "2026-11-15T12:00:00-03:30", "2026-11-01T00:00:00-02:30",
            "2026-12-01T00:00:00-03:30", id="a month of a half-hour zone in which clocks go back"),
        pytest.param(
            BudgetPeriod.DAY, "Asia/Kolkata", "2026-03-31T23:59:59+05:30", "2026-03-31T00:00:00+05:30",
            "2026-04-01T00:00:00+05:30", id="a day of a half-hour zone"),
        pytest.param(
            BudgetPeriod.DAY, "Australia/Lord_Howe", "2026-10-04T12:00:00+11:00", "2026-10-04T00:00:00+10:30",
            "2026-10-05T00:00:00+11:00", id="a day of 23 and a half hours"),
        pytest.param(
            BudgetPeriod.DAY, "Australia/Lord_Howe", "2026-04-05T12:00:00+10:30", "2026-04-05T00:00:00+11:00",
            "2026-04-06T00:00:00+10:30", id="a day of 24 and a half hours"),
        pytest.param(
            BudgetPeriod.HOUR, "Europe/Berlin", "2026-03-29T01:59:59+01:00", "2026-03-29T01:00:00+01:00",
            "2026-03-29T03:00:00+02:00", id="the hour before one that is skipped"),
        pytest.param(
            BudgetPeriod.HOUR, "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:00:00+01:00", id="the first of two equal hours"),
        pytest.param(
            BudgetPeriod.HOUR, "Asia/Kathmandu", "2026-05-01T10:20:00+05:45", "2026-05-01T10:00:00+05:45",
            "2026-05-01T11:00:00+05:45", id="an hour of a zone at a quarter"),
        pytest.param(
            BudgetPeriod.HOUR, "America/New_York", "2026-11-01T01:30:00-05:00", "2026-11-01T01:00:00-05:00",
            "2026-11-01T02:00:00-05:00", id="the second of two equal hours"),
        pytest.param(
            BudgetPeriod.HOUR, "Australia/Lord_Howe", "2026-04-05T01:45:00+10:30", "2026-04-05T01:30:00+10:30",
            "2026-04-05T02:00:00+10:30", id="half an hour that comes twice"),
        pytest.param(
            BudgetPeriod.HOUR, "Australia/Lord_Howe", "2026-04-05T01:45:00+11:00", "2026-04-05T01:00:00+11:00",
            "2026-04-05T01:30:00+10:30", id="the whole hour before half of it comes again"),
        pytest.param(
            BudgetPeriod.HOUR, "Pacific/Chatham", "2026-04-05T02:50:00+12:45", "2026-04-05T02:45:00+12:45",
            "2026-04-05T03:00:00+12:45", id="a quarter of an hour that comes twice"),
        pytest.param(
            BudgetPeriod.HOUR, "Pacific/Chatham", "2026-04-05T03:00:00+13:45", "2026-04-05T03:00:00+13:45",
            "2026-04-05T02:45:00+12:45", id="the hour that clocks leave after three quarters"),
        pytest.param(
            BudgetPeriod.HOUR, "Australia/Lord_Howe", "2026-10-04T02:45:00+11:00", "2026-10-04T02:30:00+11:00",
            "2026-10-04T03:00:00+11:00", id="an hour of 30 minutes"),
    ],
)  # fmt: skip
def test_a_period_begins_and_ends_by_the_local_clock(
    period: BudgetPeriod, zone: str, moment: str, start: str, end: str
) -> None:
    assert span_of(period, zone, at(moment)) == (at(start), at(end))


@settings(deadline=None)
@given(st.sampled_from(BudgetPeriod), st.sampled_from(ZONES), MOMENTS)
def test_periods_follow_each_other_without_gap_or_overlap(period: BudgetPeriod, zone: str, moment: datetime) -> None:
    start, end = span_of(period, zone, moment)
    assert start <= moment < end
    assert span_of(period, zone, start) == (start, end)
    assert span_of(period, zone, end - timedelta(microseconds=1)) == (start, end)
    assert span_of(period, zone, end)[0] == end


def days_with_a_change(zone: str) -> list[datetime]:
    """UTC days from 2025 to 2028 in which clocks change."""
    days = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(4 * 365)]
    return [day for day in days if _offset(day, zone) != _offset(day + timedelta(days=1), zone)]


def _offset(moment: datetime, zone: str) -> timedelta | None:
    return moment.astimezone(ZoneInfo(zone)).utcoffset()


# What a calendar on the wall says, worked out in no way like the spans. An hour that comes twice is two hours.
LABELS: dict[BudgetPeriod, Callable[[datetime], Any]] = {
    BudgetPeriod.HOUR: lambda local: (local.date(), local.hour, local.utcoffset()),
    BudgetPeriod.DAY: lambda local: local.date(),
    BudgetPeriod.WEEK: lambda local: local.isocalendar()[:2],
    BudgetPeriod.MONTH: lambda local: (local.year, local.month),
}
CHANGES = [(zone, day) for zone in ZONES for day in days_with_a_change(zone)]
SECONDS_OF_A_DAY = 24 * 60 * 60


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(BudgetPeriod),
    st.sampled_from(CHANGES),
    st.integers(0, SECONDS_OF_A_DAY),
    st.one_of(st.integers(-7200, 7200), st.integers(-40 * SECONDS_OF_A_DAY, 40 * SECONDS_OF_A_DAY)),
)
def test_where_clocks_change_a_period_holds_what_the_calendar_on_the_wall_says(
    period: BudgetPeriod, change: tuple[str, datetime], second: int, distance: int
) -> None:
    zone, day = change
    moment = day + timedelta(seconds=second)
    other = moment + timedelta(seconds=distance)
    start, end = span_of(period, zone, moment)
    ours, theirs = (LABELS[period](each.astimezone(ZoneInfo(zone))) for each in (moment, other))
    assert (start <= other < end) == (ours == theirs)


def test_a_rolling_period_reaches_back_from_the_current_minute() -> None:
    now = at("2026-11-24T12:34:56+00:00")
    for period, length in LENGTHS.items():
        start, end = rolling_span(period, now)
        assert start == at("2026-11-24T12:34:00+00:00") - length
        assert end > now
