"""Whatever the planner answers from is equal to the raw rows: held against them in SQL and against plain Python."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import measures, planner
from aggregator.rollups.measures import FINE_SECONDS, MEASURES, ROLLUPS, Bucket, Dimension, Rollup, Summary
from aggregator.rollups.planner import Question, compile_answer, compile_states
from aggregator.times import Span
from tests.support.api import filled_warehouse
from tests.support.rows import KEYS, MODELS, START, STATUSES, USERS, Row, folded, random_rows, why_unpriced

ROWS = 3_000
# Over two whole months and some days on both sides; before Lord Howe changes its clocks by half an hour on 5 April,
# which ClickHouse gets wrong (an expected failure of test_request_logs_stats.py).
SPAN = timedelta(days=63)
ZONES = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "Pacific/Chatham", "Australia/Lord_Howe")
VALUES: dict[Dimension, tuple[str, ...]] = {
    Dimension.USER: (*USERS, "nobody"),
    Dimension.MODEL: MODELS,
    Dimension.API_KEY: KEYS,
    Dimension.STATUS: STATUSES,
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return random_rows(11, ROWS, span=SPAN)


@pytest.fixture(scope="module")
def filled(engine_url: str, rows: list[Row]) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, rows) as warehouse:
        yield warehouse


moments = st.one_of(
    st.integers(-3600 * 5, int(SPAN.total_seconds()) + 3600 * 5).map(
        lambda seconds: START + timedelta(seconds=seconds)
    ),
    st.integers(-20, SPAN.days * 96 + 20).map(
        lambda n: START.replace(minute=0, second=0, microsecond=0) + timedelta(minutes=15 * n)
    ),
    st.datetimes(START.replace(tzinfo=None), (START + SPAN).replace(tzinfo=None), timezones=st.just(UTC)),
)
spans = st.builds(Span, st.none() | moments, st.none() | moments)
filters = st.lists(st.sampled_from(list(VALUES)), max_size=3, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({dimension: st.sampled_from(VALUES[dimension]) for dimension in chosen})
)
years = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - it has one
questions = st.builds(
    Question,
    st.just(MEASURES),
    span=spans,
    equals=filters,
    group_by=st.none() | st.sampled_from([*Dimension, *Bucket]),
    timezone=st.sampled_from(ZONES),
)


def answer(warehouse: Warehouse, question: Question) -> list[dict[str, Any]]:
    sql, parameters = compile_answer(question, "group_key", 100_000)
    return warehouse.query(sql, parameters)


@given(question=questions)
@settings(max_examples=150, deadline=None)
def test_the_answer_from_rollups_equals_the_answer_from_raw_rows(filled: Warehouse, question: Question) -> None:
    planned = answer(filled, question)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "ROLLUPS", ())
        assert planner.plan(question).rollup is None
        raw = answer(filled, question)
    assert str(planned) == str(raw)  # as text, since NaN (no durations) is not equal to itself


def bucket_start(moment: datetime, bucket: Bucket, zone: str) -> int:
    """Start of the local hour or day that holds the moment, found by walking back minute by minute."""
    local = moment.astimezone(ZoneInfo(zone))

    def label(at: datetime) -> tuple[Any, ...]:
        here = at.astimezone(ZoneInfo(zone))
        return (here.date(), here.hour, here.utcoffset()) if bucket is Bucket.HOUR else (here.date(),)

    if bucket in FINE_SECONDS:
        return int(moment.timestamp()) // FINE_SECONDS[bucket] * FINE_SECONDS[bucket]
    if bucket in (Bucket.WEEK, Bucket.MONTH, Bucket.YEAR):
        days = {Bucket.WEEK: local.weekday(), Bucket.MONTH: local.day - 1, Bucket.YEAR: local.timetuple().tm_yday - 1}
        noon = local.replace(hour=12) - timedelta(days=days[bucket])
        return bucket_start(noon, Bucket.DAY, zone)

    start = local.astimezone(UTC).replace(second=0, microsecond=0)
    while label(start - timedelta(minutes=1)) == label(moment):
        start -= timedelta(minutes=1)
    return int(start.timestamp())


def meant(dimension: Dimension, value: str) -> str:
    return folded(value) if dimension is Dimension.STATUS else value


def of_dimension(row: Row, dimension: Dimension) -> str:
    return meant(dimension, row[dimension.value])


def group_of(row: Row, question: Question) -> Any:
    if isinstance(question.group_by, Bucket):
        return bucket_start(row["timestamp"], question.group_by, question.timezone)
    return of_dimension(row, question.group_by) if question.group_by else ""


def brute_force(rows: list[Row], question: Question) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        span = question.span
        is_inside = (span.start is None or row["timestamp"] >= span.start) and (
            span.end is None or row["timestamp"] < span.end
        )
        if is_inside and all(of_dimension(row, each) == meant(each, value) for each, value in question.equals.items()):
            groups[group_of(row, question)].append(row)
    return groups


def assert_measures(found: dict[str, Any], rows: list[Row]) -> None:
    def total(name: str, zero: int | Decimal = 0) -> Any:
        return sum((row[name] for row in rows if row[name] is not None), zero)

    durations = sorted(row["duration_ms"] for row in rows if row["duration_ms"] is not None)
    assert found["requests"] == len(rows)
    assert found["errors"] == sum(row["is_error"] for row in rows)
    reasons = [why_unpriced(row) for row in rows]
    assert found["unpriced"] == reasons.count("no_price")
    assert found["missing_usage"] == reasons.count("no_usage")
    assert found["failed_without_usage"] == reasons.count("failed_without_usage")
    assert found["input_tokens"] == total("input_tokens")
    assert found["cost"] == total("cost", Decimal(0))
    assert found["output_tokens_cost"] == total("output_tokens_cost", Decimal(0))
    assert (found["duration_ms_sum"], found["duration_ms_count"]) == (sum(durations), len(durations))
    for level, counted in zip(measures.LEVELS, found["duration_ms_histogram"], strict=True):
        if not durations:
            assert math.isnan(counted)
            continue
        # Any value between the two order statistics around the level is a quantile of the rows.
        place = level * (len(durations) - 1)
        low, high = durations[math.floor(place)], durations[math.ceil(place)]
        error = measures.RELATIVE_ERROR * 1.001
        assert low * (1 - error) <= counted <= high * (1 + error)
        assert durations[0] <= counted <= durations[-1]


@given(question=questions)
@settings(max_examples=60, deadline=None)
def test_the_answer_equals_a_plain_loop_over_the_rows(filled: Warehouse, rows: list[Row], question: Question) -> None:
    groups = brute_force(rows, question)
    found = answer(filled, question)
    if not groups:
        assert all(row["requests"] == 0 for row in found)
        return
    totals, *grouped = found
    assert totals["is_total"] == 1
    assert_measures(totals, [row for group in groups.values() for row in group])
    assert [row["group_key"] for row in grouped] == sorted(
        groups, key=lambda key: str(key).encode() if isinstance(key, str) else key
    )
    for row in grouped:
        assert_measures(row, groups[row["group_key"]])


def test_each_rollup_is_used_by_some_question_and_raw_rows_by_another() -> None:
    span = Span(START, START + SPAN)
    used = [
        planner.plan(Question(MEASURES, span, equals, group_by)).rollup
        for equals, group_by in (
            ({}, Bucket.HOUR),
            ({Dimension.MODEL: "x"}, Dimension.USER),
            ({Dimension.PROVIDER: "x"}, Dimension.USER),
        )
    ]
    assert used == [*ROLLUPS, None]


@pytest.mark.parametrize(
    ("zone", "table"),
    [("UTC", "rollup_user"), ("America/New_York", "rollup_user"), ("Asia/Kolkata", None), ("Asia/Kathmandu", None)],
)
def test_an_hourly_rollup_serves_only_zones_of_whole_hours(zone: str, table: str | None) -> None:
    question = Question(MEASURES, Span(), {Dimension.USER: "u"}, Bucket.DAY, zone)
    rollup = planner.plan(question).rollup
    assert (rollup.table if rollup else None) == table


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "Pacific/Chatham"])
def test_quarter_hour_rollups_serve_zones_of_odd_quarters(zone: str) -> None:
    rollup = planner.plan(Question(MEASURES, Span(), {}, Bucket.DAY, zone)).rollup
    assert rollup is ROLLUPS[0]


def grains_of(question: Question) -> list[Bucket | None]:
    return [part.summary.grain if part.summary else None for part in planner.plan(question).parts]


def test_the_span_is_cut_into_months_days_quarters_and_ragged_edges() -> None:
    start, end = datetime(2026, 1, 30, 22, 1, tzinfo=UTC), datetime(2026, 4, 2, 3, 59, 59, 999_999, tzinfo=UTC)
    question = Question(MEASURES, Span(start, end), group_by=Dimension.MODEL)
    assert grains_of(question) == [Bucket.MONTH, Bucket.DAY, Bucket.QUARTER_HOUR, None]
    (months,), days, quarters, rows = (part.spans for part in planner.plan(question).parts)
    assert months == Span(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert days == (
        Span(datetime(2026, 1, 31, tzinfo=UTC), months.start),
        Span(months.end, datetime(2026, 4, 2, tzinfo=UTC)),
    )
    assert quarters == (
        Span(datetime(2026, 1, 30, 22, 15, tzinfo=UTC), days[0].start),
        Span(days[1].end, datetime(2026, 4, 2, 3, 45, tzinfo=UTC)),
    )
    assert rows == (Span(start, quarters[0].start), Span(quarters[1].end, end))


@given(moment=years)
@settings(max_examples=300, deadline=None)
def test_a_month_is_cut_where_the_calendar_has_its_first_day(moment: datetime) -> None:
    question = Question(MEASURES, Span(moment), group_by=Dimension.API_KEY)
    (month,) = planner.plan(question).parts[0].spans
    first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    later = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
    assert month == Span(first if moment == first else later)


@given(
    span=st.builds(Span, st.none() | years, st.none() | years), group_by=st.none() | st.sampled_from(list(Dimension))
)
@settings(max_examples=300, deadline=None)
def test_every_moment_of_the_span_is_in_one_part(span: Span, group_by: Dimension | None) -> None:
    pieces = [piece for part in planner.plan(Question(MEASURES, span, group_by=group_by)).parts for piece in part.spans]
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    pieces.sort(key=lambda piece: piece.start or first)
    assert (pieces[0].start, pieces[-1].end) == (span.start, span.end)
    for before, after in pairwise(pieces):
        assert before.end == after.start
        assert (before.start or first) < (before.end or last)


@pytest.mark.parametrize(
    ("group_by", "dimension", "zone", "grains"),
    [
        (Bucket.YEAR, Dimension.STATUS, "UTC", "month day hour quarter_hour"),
        (Bucket.MONTH, Dimension.MODEL, "UTC", "month day quarter_hour"),
        (Bucket.MONTH, Dimension.MODEL, "Europe/London", "quarter_hour"),
        (Bucket.MONTH, Dimension.USER, "UTC", "month day hour"),
        (Bucket.WEEK, Dimension.STATUS, "UTC", "day hour quarter_hour"),
        (Bucket.DAY, Dimension.API_KEY, "UTC", "day hour"),
        (Bucket.DAY, Dimension.STATUS, "Europe/London", "hour quarter_hour"),
        (Bucket.HOUR, Dimension.STATUS, "UTC", "hour quarter_hour"),
        (Bucket.HOUR, Dimension.STATUS, "Asia/Kolkata", "quarter_hour"),
        (Bucket.HOUR, Dimension.MODEL, "UTC", "quarter_hour"),
        (Bucket.QUARTER_HOUR, Dimension.STATUS, "UTC", "quarter_hour"),
        (None, Dimension.PROVIDER, "Europe/Berlin", "month day quarter_hour"),
        (None, Dimension.API_KEY, "Europe/Berlin", "month day hour"),
    ],
)
def test_a_summary_is_read_only_where_its_buckets_lie_within_those_of_the_question(
    group_by: Bucket | None, dimension: Dimension, zone: str, grains: str
) -> None:
    span = Span(datetime(2026, 1, 30, 22, tzinfo=UTC), datetime(2026, 4, 2, 3, 45, tzinfo=UTC))
    if dimension in (Dimension.USER, Dimension.API_KEY):
        span = Span(span.start, datetime(2026, 4, 2, 3, tzinfo=UTC))
    assert grains_of(Question(MEASURES, span, {dimension: "x"}, group_by, zone)) == grains.split()


def test_users_by_model_have_no_months() -> None:
    span = Span(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    assert grains_of(Question(MEASURES, span, {Dimension.USER: "x"}, Dimension.MODEL)) == [Bucket.DAY]


PROJECTIONS = {Bucket.HOUR: "hourly", Bucket.DAY: "daily", Bucket.MONTH: "monthly"}


def named(filled: Warehouse, rollup: Rollup, summary: Summary) -> str:
    """As EXPLAIN names what is read."""
    is_table = summary is rollup.summaries[-1]
    return f"{filled.database}.{rollup.table}" if is_table else PROJECTIONS[summary.grain]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("equals", [{}, {Dimension.MODEL: "gpt-5"}, {Dimension.USER: "alice"}], ids=str)
@pytest.mark.parametrize("group_by", [None, *Dimension, *Bucket])
@pytest.mark.parametrize(
    "span", [Span(), Span(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 5, 3, tzinfo=UTC))], ids=["all", "some"]
)
def test_clickhouse_reads_the_summaries_that_the_planner_means(
    filled: Warehouse, span: Span, group_by: Dimension | Bucket | None, equals: dict[Dimension, str], zone: str
) -> None:
    question = Question(MEASURES, span, equals, group_by, zone)
    chosen = planner.plan(question)
    sql, parameters = compile_states(question)
    explained = "\n".join(row["explain"] for row in filled.query(f"EXPLAIN {sql}", parameters))
    read = re.findall(r"ReadFromMergeTree \((.+)\)", explained)
    if chosen.rollup is None:
        assert read == [f"{filled.database}.request_logs"]
    else:
        summaries = [part.summary for part in chosen.parts if part.summary]
        assert read == [named(filled, chosen.rollup, summary) for summary in summaries]


def test_one_user_is_found_without_reading_all_others(filled: Warehouse) -> None:
    sql, parameters = compile_states(Question(MEASURES, Span(), {Dimension.USER: "alice"}, Dimension.MODEL))
    explained = "\n".join(row["explain"] for row in filled.query(f"EXPLAIN indexes = 1 {sql}", parameters))
    assert re.search(r"PrimaryKey\s+Keys:\s+user_id\s", explained)


def test_a_span_within_one_bucket_is_answered_from_raw_rows() -> None:
    span = Span(datetime(2026, 1, 1, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 14, tzinfo=UTC))
    assert planner.plan(Question(MEASURES, span)) == planner.Plan(None, (planner.Part(None, (span,)),))
