"""Compiles a question about aggregates to one SQL statement over the cheapest tables that answer it exactly.

A rollup answers the whole buckets of the time range, its projections the whole months and days among them, and raw rows
the rest at both ends. Where no rollup fits, raw rows answer everything. The answer is the same either way, and a
property test checks that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from aggregator.clickhouse.sql import Binder, all_of, time_range
from aggregator.clickhouse.tables import REQUEST_LOGS
from aggregator.rollups.measures import ROLLUPS, WIDTH_SECONDS, Bucket, Dimension, Measure, Rollup, Summary
from aggregator.times import EPOCH, EVERYTHING, Span

# From an expression and a zone to an instant. Weeks and longer come as dates, whose start is local midnight.
BUCKET_START = {
    Bucket.SECOND: "toStartOfSecond({column}, {zone})",
    Bucket.MINUTE: "toStartOfMinute({column}, {zone})",
    Bucket.FIVE_MINUTES: "toStartOfFiveMinutes({column}, {zone})",
    Bucket.QUARTER_HOUR: "toStartOfFifteenMinutes({column}, {zone})",
    Bucket.HOUR: "toStartOfHour({column}, {zone})",
    Bucket.DAY: "toStartOfDay({column}, {zone})",
    Bucket.WEEK: "toStartOfDay(toDateTime(toStartOfWeek({column}, 1, {zone}), {zone}), {zone})",
    Bucket.MONTH: "toStartOfDay(toDateTime(toStartOfMonth({column}, {zone}), {zone}), {zone})",
    Bucket.YEAR: "toStartOfDay(toDateTime(toStartOfYear({column}, {zone}), {zone}), {zone})",
}


def bucket_key(column: str, bucket: Bucket, zone: str) -> str:
    """SQL for the start of the bucket in Unix seconds; `zone` is an expression."""
    return f"toUnixTimestamp({BUCKET_START[bucket].format(column=column, zone=zone)})"


@dataclass(frozen=True)
class Condition:
    """SQL over request_logs that is 0 or 1, and the parameters that a Binder collected for it; empty for no condition.

    `dimensions` are all the columns that it reads; None says that it reads others, which no rollup has.
    """

    sql: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    dimensions: frozenset[Dimension] | None = frozenset()

    @property
    def is_empty(self) -> bool:
        return not self.sql

    def binder(self) -> Binder:
        """The Binder of a statement that holds the condition: it gives no value a name that the condition has taken."""
        return Binder(dict(self.parameters))


@dataclass(frozen=True)
class Question:
    """Measures over the requests of a span, filtered by equality and a condition, grouped by a dimension or by time.

    `bucket` splits the groups of a dimension by time as well. `confined_to` are the dimensions that confine the
    caller's rows: ClickHouse filters by them, whichever table it reads.
    """

    measures: tuple[Measure, ...]
    span: Span = EVERYTHING
    equals: Mapping[Dimension, str] = field(default_factory=dict)
    group_by: Dimension | Bucket | None = None
    timezone: str = "UTC"
    confined_to: frozenset[Dimension] = frozenset()
    condition: Condition = Condition()
    bucket: Bucket | None = None

    @property
    def dimensions(self) -> set[Dimension]:
        grouped = {self.group_by} if isinstance(self.group_by, Dimension) else set()
        return grouped | set(self.equals) | self.confined_to | (self.condition.dimensions or set())

    @property
    def buckets(self) -> list[Bucket]:
        return [bucket for bucket in (self.group_by, self.bucket) if isinstance(bucket, Bucket)]


@dataclass(frozen=True)
class Part:
    """Spans that do not overlap. One summary of the plan's rollup answers them, or raw rows if it is None."""

    summary: Summary | None
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Plan:
    """Parts that together cover each moment of the question's span once. Without a rollup all of them read raw rows."""

    rollup: Rollup | None
    parts: tuple[Part, ...]


@lru_cache
def _utc_offsets_seconds(timezone: str) -> frozenset[int]:
    """Every offset from UTC that the zone has in the years of events, sampled twice a month."""
    zone = ZoneInfo(timezone)
    samples = (EPOCH + timedelta(days=15 * n) for n in range(130 * 25))
    offsets = (sample.astimezone(zone).utcoffset() for sample in samples)
    return frozenset(int(offset.total_seconds()) for offset in offsets if offset is not None)


def _can_answer(summary: Summary, question: Question) -> bool:
    """Whether the summary has every dimension of the question, and each of its buckets lies in one bucket of it."""
    if question.condition.dimensions is None or not question.dimensions <= set(summary.dimensions):
        return False
    return all(_never_straddles(summary.grain, bucket, question.timezone) for bucket in question.buckets)


def _never_straddles(grain: Bucket, bucket: Bucket, timezone: str) -> bool:
    """Whether each bucket of the grain, in UTC, lies in one bucket of the zone."""
    offsets = _utc_offsets_seconds(timezone)
    if grain is Bucket.MONTH:
        return bucket in (Bucket.MONTH, Bucket.YEAR) and offsets == {0}
    # Every bucket from a day up starts at some midnight of the zone.
    width = WIDTH_SECONDS.get(bucket, WIDTH_SECONDS[Bucket.DAY])
    return width >= WIDTH_SECONDS[grain] and all(offset % WIDTH_SECONDS[grain] == 0 for offset in offsets)


def floor(moment: datetime, grain: Bucket) -> datetime:
    """The start of the bucket (UTC) that holds the moment."""
    if grain is Bucket.MONTH:
        return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return moment - (moment - EPOCH) % timedelta(seconds=WIDTH_SECONDS[grain])


def ceiling(moment: datetime, grain: Bucket) -> datetime:
    """The first start of a bucket (UTC) that is not before the moment."""
    start = floor(moment, grain)
    if start == moment:
        return moment
    if grain is Bucket.MONTH:
        return floor(start + timedelta(days=31), grain)
    return start + timedelta(seconds=WIDTH_SECONDS[grain])


def _inside_and_edges(span: Span, grain: Bucket) -> tuple[Span | None, tuple[Span, ...]]:
    """The whole buckets of the span, and the rest of it at both ends."""
    inside = Span(span.start and ceiling(span.start, grain), span.end and floor(span.end, grain))
    if inside.is_empty:
        return None, (span,)
    edges = (Span(span.start, inside.start), Span(inside.end, span.end))
    return inside, tuple(edge for edge in edges if edge.start != edge.end)


def _parts(span: Span, summaries: Sequence[Summary]) -> tuple[Part, ...]:
    """The span cut along the buckets of each summary in turn. Raw rows answer the rest."""
    parts: list[Part] = []
    left: tuple[Span, ...] = (span,)
    for summary in summaries:
        cut = [_inside_and_edges(each, summary.grain) for each in left]
        if whole := tuple(inside for inside, _ in cut if inside is not None):
            parts.append(Part(summary, whole))
        left = tuple(edge for _, edges in cut for edge in edges)
    return (*parts, Part(None, left)) if left else tuple(parts)


def plan(question: Question) -> Plan:
    """The cheapest exact plan."""
    for rollup in ROLLUPS:
        parts = _parts(question.span, [each for each in rollup.summaries if _can_answer(each, question)])
        if parts[0].summary is not None:
            return Plan(rollup, parts)
    return Plan(None, (Part(None, (question.span,)),))


def _where(column: str, spans: Sequence[Span], question: Question, binder: Binder) -> str:
    ranges = [time_range(column, span) for span in spans]
    within = f"({' OR '.join(ranges)})" if all(ranges) else ""
    equals = [f"{each.sql} = {binder.text(each.meant_by(value))}" for each, value in question.equals.items()]
    return all_of(within, *equals, question.condition.sql)


def _keys(column: str, question: Question, binder: Binder) -> str:
    """The key columns of a branch."""
    group_key = f"{_key(column, question.group_by, question, binder)} AS group_key"
    if question.bucket is None:
        return group_key
    return f"{group_key}, {_key(column, question.bucket, question, binder)} AS bucket_key"


def _key(column: str, group_by: Dimension | Bucket | None, question: Question, binder: Binder) -> str:
    if group_by is None:
        return "''"
    if isinstance(group_by, Dimension):
        return f"toString({group_by.sql})"
    return bucket_key(column, group_by, binder.text(question.timezone))


def compile_states(question: Question) -> tuple[str, dict[str, Any]]:
    """SQL that yields (`group_key`, one mergeable column per measure), several rows per key, and its parameters.

    `group_key` is the dimension's value, the bucket's start in Unix seconds, or `''` without a group-by. With a
    `bucket` there is a second key, `bucket_key`, its start in Unix seconds.
    """
    chosen, binder = plan(question), question.condition.binder()
    key_names = "group_key" if question.bucket is None else "group_key, bucket_key"
    branches = []
    for part in chosen.parts:
        if part.summary is None or chosen.rollup is None:
            table, start, spans = REQUEST_LOGS, "timestamp", part.spans
            columns = [measure.from_raw for measure in question.measures]
        else:
            table, start = chosen.rollup.table, part.summary.start
            # Without a condition on `start` ClickHouse may choose another projection. No bucket is before 1970.
            spans = tuple(Span(span.start or EPOCH, span.end) for span in part.spans)
            columns = [measure.merge.format(column=f"{table}.{measure.name}") for measure in question.measures]
        named = ", ".join(
            f"{column} AS {measure.name}" for column, measure in zip(columns, question.measures, strict=True)
        )
        branches.append(
            f"SELECT {_keys(start, question, binder)}, {named} FROM {table}"
            f" WHERE {_where(start, spans, question, binder)} GROUP BY {key_names}"
        )
    return "\nUNION ALL\n".join(branches), binder.parameters


def compile_answer(question: Question, order_by: str, limit: int) -> tuple[str, dict[str, Any]]:
    """SQL that yields one row of totals (`is_total` 1, first), then up to `limit` groups in order.

    `order_by` is an expression over the measures' names; it comes from code, never from a request.
    """
    states, parameters = compile_states(question)
    finished = ", ".join(f"{measure.finished('states')} AS {measure.name}" for measure in question.measures)
    sql = (
        f"SELECT group_key, grouping(group_key) AS is_total, {finished}\nFROM (\n{states}\n) AS states\n"
        f"GROUP BY GROUPING SETS ((), (group_key))\n"
        f"ORDER BY is_total DESC, {order_by}\nLIMIT {int(limit) + 1}"
    )
    return sql, parameters
