"""The snapshot of ClickHouse: what every account has spent, up to an offset watermark per source partition.

Rollups hold no offsets. So the newest part comes from raw rows up to a watermark, which is read first: rows that a
batch adds meanwhile lie beyond it and come as an increment. The hours before are *closed*. Their sums come from
rollups through the planner, and increments of closed hours do not count: nobody can tell whether the rollups have
them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from string import Template
from typing import Any

import structlog

from aggregator.budgets import metrics, model_health
from aggregator.budgets.accounts import ZERO, Snapshot, SpentSums, Window
from aggregator.budgets.increment import Usage
from aggregator.budgets.period import MINUTE, minutes
from aggregator.budgets.subject import SubjectKind
from aggregator.clickhouse.client import DatabaseError, Warehouse, WarehouseUnavailableError
from aggregator.clickhouse.sql import all_of, instant, time_range
from aggregator.rollups.measures import (
    COST,
    DURATION_COUNT,
    DURATION_SUM,
    ERRORS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    WITHOUT_COST,
    Bucket,
    Dimension,
)
from aggregator.rollups.planner import Question, compile_states, floor
from aggregator.times import EPOCH, Span

log = structlog.get_logger(__name__)

# A batch is stored within this, or fails. Rows beyond the watermark are younger.
IN_FLIGHT = timedelta(minutes=10)
# An hour is closed, and its sums come from rollups, once this has passed since its end.
CLOSING_DELAY = timedelta(minutes=5)
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class _SubjectSource:
    """Where the sums of a kind of subject come from: SQL over raw rows, and the dimension of the rollups."""

    key: str = "''"
    condition: str = ""
    join: str = ""
    dimension: Dimension | None = None
    is_rolled_up: bool = True


def _dimension(dimension: Dimension) -> _SubjectSource:
    condition = f"{dimension.value} IN {{values:Array(String)}}"
    return _SubjectSource(f"toString({dimension.value})", condition, dimension=dimension)


SOURCES = {
    SubjectKind.TOTAL: _SubjectSource(),
    SubjectKind.MODEL: _dimension(Dimension.MODEL),
    SubjectKind.USER: _dimension(Dimension.USER),
    SubjectKind.API_KEY: _dimension(Dimension.API_KEY),
    # No rollup holds tags. A tag that a request has twice counts once.
    SubjectKind.TAG: _SubjectSource(
        "toString(tag)",
        "hasAny(tags, {values:Array(String)})",
        "ARRAY JOIN arrayDistinct(tags) AS tag",
        is_rolled_up=False,
    ),
}
MEASURES = (REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS, COST)
HEALTH_MEASURES = (REQUESTS, ERRORS, *WITHOUT_COST, DURATION_SUM, DURATION_COUNT)

# What replaces a $name comes from code, see below; values are bound.
LAST_OFFSETS = Template("""
SELECT source_partition AS partition, argMax(source_offset, (created_at, source_offset)) AS last
FROM request_logs
WHERE source_topic = {topic:String} AND $is_open
GROUP BY source_partition
""")
# Not counted yet: it comes as an increment.
BEYOND_WATERMARK = Template("""(
    source_topic = {topic:String} AND $is_open AND $may_be_in_flight
    AND toInt64(source_offset) >
        transform(source_partition, {watermark_partitions:Array(UInt32)}, {watermark_offsets:Array(Int64)}, toInt64(-1))
)""")
RAW = Template("""
SELECT $key AS group_key, $measures FROM request_logs $join
WHERE $where
GROUP BY group_key
""")
SPENT = Template("""
SELECT group_key, sum(requests) AS requests, sum(input_tokens) + sum(output_tokens) AS tokens, sum(cost) AS cost
FROM ($branches) WHERE $condition GROUP BY group_key
""")
OF_VALUES = "group_key IN {values:Array(String)}"
# Bound values travel in a URL; for more subjects than this all groups are read.
MAX_VALUES = 500
# Increments that are counted while ClickHouse answers stay in memory, so that it must not take for ever.
LIMITS = {"max_execution_time": 60}
HISTORY = Template("""
SELECT model_name AS model, intDiv(toUnixTimestamp(bucket), 60) AS minute, $merged
FROM rollup_model WHERE $is_closed GROUP BY model, minute
UNION ALL
SELECT model_name AS model, intDiv(toUnixTimestamp(timestamp), 60) AS minute, $counted
FROM request_logs WHERE $is_open AND NOT $beyond
GROUP BY model, minute
""")
KNOWN_ALERTS = Template("""
SELECT DISTINCT alert_id, toUnixTimestamp64Milli(period_end) AS period_end_ms FROM alerts
WHERE period_end > $now
""")


@dataclass(frozen=True)
class Watermark:
    """Up to which offset each partition of the source topic is stored, as of `taken_at`."""

    topic: str
    offsets: Mapping[int, int]
    taken_at: datetime

    @property
    def closed_before(self) -> datetime:
        """The end of the closed hours."""
        return floor(self.taken_at - CLOSING_DELAY, Bucket.HOUR)

    @property
    def models_closed_before(self) -> datetime:
        """The same for models, which are compared by shorter spans: the end of the closed quarters of an hour."""
        return floor(self.taken_at - CLOSING_DELAY, Bucket.QUARTER_HOUR)

    @property
    def beyond(self) -> str:
        """SQL for the rows of the topic that are not counted yet; it binds `parameters`."""
        return BEYOND_WATERMARK.substitute(
            is_open=time_range("timestamp", Span(self.closed_before)),
            may_be_in_flight=time_range("created_at", Span(self.taken_at - IN_FLIGHT)),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "watermark_partitions": list(self.offsets),
            "watermark_offsets": list(self.offsets.values()),
        }


@dataclass(frozen=True)
class SnapshotRequest:
    """Which sums are needed: `windows` with the subject values of each. `counted` is the last offset whose increment
    was counted, by source partition."""

    topic: str
    requested_at: datetime
    are_alerts_known: bool = False
    counted: dict[int, int] = field(default_factory=dict)
    windows: dict[Window, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class SnapshotResponse:
    """`models` are by name; from minute `models_closed_before` on they have the rows up to the watermark.
    `known_alerts` is the end of the period by alert id."""

    snapshot: Snapshot
    models: Mapping[str, list[Usage]]
    models_closed_before: int
    known_alerts: Mapping[str, datetime]


def take_snapshot(warehouse: Warehouse, request: SnapshotRequest) -> SnapshotResponse:
    """Blocks; raises what the warehouse raises."""
    watermark = read_watermark(warehouse, request.topic, request.counted, request.requested_at)
    sums = {window: found for window, values in request.windows.items()
            if (found := _spent_or_none(warehouse, window, values, watermark)) is not None}  # fmt: skip
    models: defaultdict[str, list[Usage]] = defaultdict(list)
    for usage in read_model_history(warehouse, watermark):
        models[usage.value].append(usage)
    alerts = {} if request.are_alerts_known else read_known_alerts(warehouse, request.requested_at)
    snapshot = Snapshot(watermark.offsets, minutes(watermark.closed_before), sums)
    return SnapshotResponse(snapshot, models, minutes(watermark.models_closed_before), alerts)


def _spent_or_none(
    warehouse: Warehouse, window: Window, values: Collection[str], watermark: Watermark
) -> dict[str, SpentSums] | None:
    """None where the sums of tags fail, which may take too long: the other windows are read nevertheless."""
    try:
        return read_spent(warehouse, window, values, watermark)
    except (DatabaseError, WarehouseUnavailableError) as error:
        if window.kind is not SubjectKind.TAG:
            raise
        metrics.RECONCILE_FAILURES.inc()
        log.warning("tags_not_summed", budgets_of_tags=len(values), reason=str(error)[:500])
        return None


def read_watermark(warehouse: Warehouse, topic: str, counted: Mapping[int, int], now: datetime) -> Watermark:
    """The last stored offset of each partition, or the last counted one: an increment is sent after its batch is
    stored."""
    sql = LAST_OFFSETS.substitute(is_open=time_range("timestamp", Span(Watermark(topic, {}, now).closed_before)))
    offsets = dict(counted)
    for row in warehouse.query(sql, {"topic": topic}, LIMITS):
        partition, last = int(row["partition"]), int(row["last"])
        offsets[partition] = max(last, offsets.get(partition, -1))
    return Watermark(topic, offsets, now)


def read_spent(
    warehouse: Warehouse, window: Window, values: Collection[str], watermark: Watermark
) -> dict[str, SpentSums]:
    """What each subject of the window has used up to the watermark, by value; zeros for one without usage."""
    found = dict.fromkeys(values, SpentSums())
    for chunk in _chunks(window.kind, sorted(values)):
        for row in _query_spent(warehouse, window, chunk, watermark):
            if row["group_key"] in found:
                found[row["group_key"]] = SpentSums(row["requests"], row["tokens"], row["cost"])
    return found


def _chunks(kind: SubjectKind, values: Sequence[str]) -> Iterator[Sequence[str]]:
    """At most MAX_VALUES at a time. For more of them all groups are read at once (an empty chunk), but not of tags,
    whose number is unknown."""
    if len(values) > MAX_VALUES and SOURCES[kind].is_rolled_up:
        yield ()
        return
    for first in range(0, len(values), MAX_VALUES):
        yield values[first : first + MAX_VALUES]


def _query_spent(
    warehouse: Warehouse, window: Window, values: Sequence[str], watermark: Watermark
) -> list[dict[str, Any]]:
    """Requests, tokens and cost by subject value; of every value if none is given."""
    source = SOURCES[window.kind]
    start, end = EPOCH + window.start * MINUTE, EPOCH + window.end * MINUTE
    raw_start = max(start, watermark.closed_before) if source.is_rolled_up else start
    parameters = {**watermark.parameters, "values": list(values)}
    of_values = source.condition if values else ""
    raw = RAW.substitute(
        key=source.key,
        join=source.join,
        measures=", ".join(f"{measure.from_raw} AS {measure.name}" for measure in MEASURES),
        where=all_of(time_range("timestamp", Span(raw_start, end)), of_values, f"NOT {watermark.beyond}"),
    )
    branches = [raw]
    closed = Span(start, raw_start)
    if not closed.is_empty:
        sql, planned = compile_states(Question(MEASURES, closed, group_by=source.dimension))
        branches.append(sql)
        parameters |= planned
    sql = SPENT.substitute(branches="\nUNION ALL\n".join(branches), condition=all_of(OF_VALUES if values else ""))
    return warehouse.query(sql, parameters, LIMITS)


def read_model_history(warehouse: Warehouse, watermark: Watermark) -> list[Usage]:
    """Sums per model, the newest by minute and older ones by quarter of an hour, as far back as anomalies need."""
    compared = (model_health.BEFORE_MINUTES + model_health.WINDOW_MINUTES) * MINUTE
    oldest = floor(watermark.taken_at, Bucket.QUARTER_HOUR) - compared
    sql = HISTORY.substitute(
        merged=", ".join(f"{m.merge.format(column=f'rollup_model.{m.name}')} AS {m.name}" for m in HEALTH_MEASURES),
        counted=", ".join(f"{m.from_raw} AS {m.name}" for m in HEALTH_MEASURES),
        is_closed=time_range("bucket", Span(oldest, watermark.models_closed_before)),
        is_open=time_range("timestamp", Span(watermark.models_closed_before)),
        beyond=watermark.beyond,
    )
    rows = warehouse.query(sql, watermark.parameters, LIMITS)
    last = minutes(watermark.taken_at)
    return [
        Usage(
            SubjectKind.MODEL.value,
            row["model"],
            min(int(row["minute"]), last),
            row["requests"],
            row["errors"],
            row["unpriced"],
            row["missing_usage"],
            row["failed_without_usage"],
            0,
            ZERO,
            row["duration_ms_sum"],
            row["duration_ms_count"],
        )
        for row in rows
    ]


def read_known_alerts(warehouse: Warehouse, now: datetime) -> dict[str, datetime]:
    """Alerts whose period is not over, which are not to be given again: the end of the period by alert id."""
    rows = warehouse.query(KNOWN_ALERTS.substitute(now=instant(now)))
    return {row["alert_id"]: EPOCH + int(row["period_end_ms"]) * MILLISECOND for row in rows}
