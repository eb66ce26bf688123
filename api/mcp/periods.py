"""Periods as people say them: `last_week`, `last_30_days`, `2026-11-16/2026-11-23`, in a time zone."""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from aggregator.times import END_OF_TIME, EPOCH, Span, request_time

MICROSECOND = timedelta(microseconds=1)
CALENDAR = ("today", "yesterday", "this_week", "last_week", "this_month", "last_month")
ALLOWED = (*CALENDAR, "last_N_hours", "last_N_days", "START/END")
ROLLING = re.compile(r"last_([1-9]\d{0,3})_(hours|days)", re.ASCII)
MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}([Tt]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?)?", re.ASCII)


class PeriodError(ValueError):
    """The text is no period; the message says why."""


def span_of(period: str, zone: ZoneInfo, now: datetime) -> Span:
    """The period in UTC, start inclusive, end exclusive; a week begins on Monday. Raises PeriodError."""
    if period in CALENDAR:
        return _calendar(period, zone, now)
    if rolling := ROLLING.fullmatch(period):
        return _bounded(now - timedelta(**{rolling[2]: int(rolling[1])}), now)
    start, slash, end = period.partition("/")
    if not slash:
        raise PeriodError(f"{period!r} is no period; allowed: {', '.join(ALLOWED)}")
    span = _bounded(_moment(start, zone), _moment(end, zone))
    if span.is_empty:
        raise PeriodError("START must be before END, which is not in the period, and both in the years 1970 to 2099")
    return span


def span_before(period: str, zone: ZoneInfo, now: datetime) -> Span:
    """The period of the same length before: of `last_month` the month before, of `this_month` the same part of the last
    one, of whole local days as many days. Raises PeriodError."""
    span = span_of(period, zone, now)
    start, end = span.start or EPOCH, span.end or END_OF_TIME
    before = _before(period, zone, start, end)
    if before.is_empty:
        raise PeriodError("there is no period before this one")
    return before


def _before(period: str, zone: ZoneInfo, start: datetime, end: datetime) -> Span:
    if period in CALENDAR:
        first = _midnight(_first(period, start.astimezone(zone).date() - timedelta(days=1)), zone)
        is_running = period == "today" or period.startswith("this_")
        return _bounded(first, min(first + (end - start), start) if is_running else start)
    local_start, local_end = start.astimezone(zone), end.astimezone(zone)
    if "/" in period and local_start.time() == time() == local_end.time():
        days = local_end.date() - local_start.date()
        return _bounded(_midnight(local_start.date() - days, zone), start)
    return _bounded(start - (end - start), start)


def _calendar(period: str, zone: ZoneInfo, now: datetime) -> Span:
    start = _midnight(_first(period, now.astimezone(zone).date()), zone)
    if period == "today" or period.startswith("this_"):
        # Never empty, not even at midnight.
        return _bounded(start, max(now, start + MICROSECOND))
    return _bounded(_midnight(_first(period, start.astimezone(zone).date() - timedelta(days=1)), zone), start)


def _first(period: str, day: date) -> date:
    """The first day of the day, week or month that holds `day`."""
    if period.endswith("_week"):
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period.endswith("_month") else day


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _moment(text: str, zone: ZoneInfo) -> datetime:
    if not MOMENT.fullmatch(text):
        raise PeriodError(f"{text!r} is neither a date, like 2026-11-16, nor an ISO 8601 time")
    try:
        found = datetime.fromisoformat(text.upper())
        return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise PeriodError(f"{text!r} is no time: {error}") from None


def _bounded(start: datetime, end: datetime) -> Span:
    return Span(request_time(start), request_time(end))
