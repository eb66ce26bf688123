"""Periods in local time, with clock changes, and the periods before them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.times import Span
from api.mcp.periods import CALENDAR, PeriodError, span_before, span_of

BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
# A Monday, at four in the morning in Berlin.
NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("today", "2026-11-29T23:00", "2026-11-30T03:00"),
        ("yesterday", "2026-11-28T23:00", "2026-11-29T23:00"),
        ("this_week", "2026-11-29T23:00", "2026-11-30T03:00"),
        ("last_week", "2026-11-22T23:00", "2026-11-29T23:00"),
        ("this_month", "2026-10-31T23:00", "2026-11-30T03:00"),
        # October has its hour twice: from summer time to winter time.
        ("last_month", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("last_24_hours", "2026-11-29T03:00", "2026-11-30T03:00"),
        ("last_7_days", "2026-11-23T03:00", "2026-11-30T03:00"),
        ("2026-10-25/2026-10-26", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("2026-10-25T02:30/2026-10-25T12:00Z", "2026-10-25T00:30", "2026-10-25T12:00"),
        ("2026-10-25t02:30:00.5+02:00/2026-10-26", "2026-10-25T00:30:00.500", "2026-10-25T23:00"),
        ("1900-01-01/2500-01-01", "1970-01-01T00:00", "2100-01-01T00:00"),
    ],
)
def test_a_period_is_of_the_local_calendar(period: str, start: str, end: str) -> None:
    assert span_of(period, BERLIN, NOW) == Span(utc(start), utc(end))


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        # As much of yesterday as there is of today, and as much of last month as of this.
        ("today", "2026-11-28T23:00", "2026-11-29T03:00"),
        ("this_month", "2026-09-30T22:00", "2026-10-30T02:00"),
        ("yesterday", "2026-11-27T23:00", "2026-11-28T23:00"),
        ("last_week", "2026-11-15T23:00", "2026-11-22T23:00"),
        ("last_month", "2026-08-31T22:00", "2026-09-30T22:00"),
        ("last_7_days", "2026-11-16T03:00", "2026-11-23T03:00"),
        # Two local days before two, though one of them has 25 hours.
        ("2026-10-26/2026-10-28", "2026-10-23T22:00", "2026-10-25T23:00"),
        ("2026-10-26T12:00Z/2026-10-26T15:00Z", "2026-10-26T09:00", "2026-10-26T12:00"),
    ],
)
def test_the_period_before_is_the_same_part_of_the_calendar(period: str, start: str, end: str) -> None:
    assert span_before(period, BERLIN, NOW) == Span(utc(start), utc(end))


@pytest.mark.parametrize(
    "period",
    ["", "last_year", "last_0_days", "last_week ", "2026-11-16", "2026-11-16/", "/", "2026-11-17/2026-11-17",
     "2026-11-18/2026-11-17", "2026-02-30/2026-03-01", "2026-11-16T25:00/2026-11-18", "16.11.2026/17.11.2026",
     "2026-11-16 10:00/2026-11-17", "0001-01-01/0001-01-02", "2026-11-16/2026-11-17/2026-11-18",
     "٢٠٢٦-11-16/2026-11-17", "last_99999_days"],
)  # fmt: skip
def test_what_is_no_period_is_refused(period: str) -> None:
    with pytest.raises(PeriodError):
        span_of(period, BERLIN, NOW)


def test_there_is_nothing_before_1970() -> None:
    assert span_of("1970-01-01/1970-01-03", KOLKATA, NOW).start == utc("1970-01-01T00:00")
    with pytest.raises(PeriodError, match="no period before"):
        span_before("1970-01-01/1970-01-03", ZoneInfo("UTC"), NOW)


@pytest.mark.parametrize("period", ["today", "this_week", "this_month"])
def test_a_period_that_begins_now_is_not_empty(period: str) -> None:
    midnight = datetime(2026, 6, 1, tzinfo=BERLIN).astimezone(UTC)  # a Monday
    assert span_of(period, BERLIN, midnight) == Span(midnight, midnight + timedelta(microseconds=1))
    assert not span_before(period, BERLIN, midnight).is_empty


@given(
    st.sampled_from(CALENDAR),
    st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe"]),
    st.integers(20 * 365 * 86_400, 67 * 365 * 86_400),
)
def test_periods_adjoin_and_begin_at_local_midnight(period: str, name: str, seconds: int) -> None:
    zone, now = ZoneInfo(name), datetime.fromtimestamp(seconds, UTC)
    span, before = span_of(period, zone, now), span_before(period, zone, now)
    assert span.start is not None
    assert before.end is not None
    assert before.end <= span.start
    if not (period == "today" or period.startswith("this_")):
        assert before.end == span.start
    for each in (span, before):
        assert each.start is not None
        first = each.start.astimezone(zone)
        assert _is_first(period, first.date())
    assert not span.is_empty


def _is_first(period: str, day: date) -> bool:
    if period.endswith("_week"):
        return day.weekday() == 0
    return day.day == 1 if period.endswith("_month") else True
