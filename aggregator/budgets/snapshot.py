"""What ClickHouse says: the base of every account, and how far each source partition is in it.

Rollups say nothing about offsets, so the newest part comes from raw rows, up to a cut of offsets that was taken
before: rows that a batch adds meanwhile are beyond it and come as an increment. What is older is *settled* and comes
from rollups through the planner; what increments say of it does not count, for nobody could tell whether it is there.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from string import Template
from typing import Any

import structlog

from aggregator.budgets import metrics, model_health
from aggregator.budgets.accounts import NOTHING, Snapshot, SpentSums, Window
from aggregator.budgets.increment import Usage
from aggregator.budgets.period import MINUTE, minutes
from aggregator.budgets.subject import SubjectKind
from aggregator.clickhouse.client import DatabaseError, Warehouse, WarehouseUnavailableError
from aggregator.rollups.measures import (
    COST,
    DURATION_COUNT,
    DURATION_SUM,
    ERRORS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    UNPRICED,
    Bucket,
    Dimension,
)
from aggregator.rollups.planner import EPOCH, Question, Span, compile_states, floor, micros

log = structlog.get_logger(__name__)

# A batch is stored within this, or fails. Rows that are beyond the cut are younger.
IN_FLIGHT = timedelta(minutes=10)
# Requests of an hour that has ended are taken from rollups once this has passed.
SETTLE = timedelta(minutes=5)
MILLISECOND = timedelta(milliseconds=1)
# No row lies beyond.
FAR = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _ScopeSource:
    """Where the sums of a kind of scope are found: SQL over raw rows, and the dimension that rollups know it by."""

    key: str = "''"
    condition: str = "1"
    join: str = ""
    dimension: Dimension | None = None
    is_rolled_up: bool = True


def _dimension(dimension: Dimension) -> _ScopeSource:
    condition = f"{dimension.value} IN {{values:Array(String)}}"
    return _ScopeSource(f"toString({dimension.value})", condition, dimension=dimension)


SOURCES = {
    SubjectKind.TOTAL: _ScopeSource(),
    SubjectKind.MODEL: _dimension(Dimension.MODEL),
    SubjectKind.USER: _dimension(Dimension.USER),
    SubjectKind.API_KEY: _dimension(Dimension.API_KEY),
    # No rollup holds tags. A tag that a request has twice counts once.
    SubjectKind.TAG: _ScopeSource(
        "toString(tag)",
        "hasAny(tags, {values:Array(String)})",
        "ARRAY JOIN arrayDistinct(tags) AS tag",
        is_rolled_up=False,
    ),
}
MEASURES = (REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS, COST)
HEALTH_MEASURES = (REQUESTS, ERRORS, UNPRICED, DURATION_SUM, DURATION_COUNT)

CUT = """
SELECT source_partition AS partition, argMax(source_offset, (created_at, source_offset)) AS last
FROM request_logs
WHERE source_topic = {topic:String} AND timestamp >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')
GROUP BY source_partition
"""
# Not counted yet: it comes as an increment.
BEYOND = """(
    source_topic = {topic:String} AND timestamp >= fromUnixTimestamp64Micro({settled:Int64}, 'UTC')
    AND created_at >= fromUnixTimestamp64Micro({in_flight:Int64}, 'UTC')
    AND toInt64(source_offset) >
        transform(source_partition, {cut_partitions:Array(UInt32)}, {cut_lasts:Array(Int64)}, toInt64(-1))
)"""
# What stands behind $ comes from code, see below; values are bound.
RAW = Template("""
SELECT $key AS group_key, $measures FROM request_logs $join
WHERE timestamp >= fromUnixTimestamp64Micro({start:Int64}, 'UTC')
AND timestamp < fromUnixTimestamp64Micro({end:Int64}, 'UTC') AND $condition AND NOT $beyond
GROUP BY group_key
""")
SPENT = Template("""
SELECT group_key, sum(requests) AS requests, sum(input_tokens) + sum(output_tokens) AS tokens, sum(cost) AS cost
FROM ($branches) WHERE $condition GROUP BY group_key
""")
OF_VALUES = "group_key IN {values:Array(String)}"
# Bound values travel in a URL; of more scopes than this all groups are read.
MAX_VALUES = 500
# What is counted while ClickHouse answers is kept until it has, so that it must not take for ever.
LIMITS = {"max_execution_time": 60}
HISTORY = Template("""
SELECT model_name AS model, intDiv(toUnixTimestamp(bucket), 60) AS minute, $merged
FROM rollup_model WHERE bucket >= fromUnixTimestamp64Micro({oldest:Int64}, 'UTC')
AND bucket < fromUnixTimestamp64Micro({newest:Int64}, 'UTC') GROUP BY model, minute
UNION ALL
SELECT model_name AS model, intDiv(toUnixTimestamp(timestamp), 60) AS minute, $counted
FROM request_logs WHERE timestamp >= fromUnixTimestamp64Micro({newest:Int64}, 'UTC') AND NOT $beyond
GROUP BY model, minute
""")
KNOWN_ALERTS = """
SELECT DISTINCT alert_id, toUnixTimestamp64Milli(period_end) AS period_end_ms FROM alerts
WHERE period_end > fromUnixTimestamp64Micro({now:Int64}, 'UTC')
"""


def _micros(moment: datetime) -> int:
    return micros(min(moment, FAR))


@dataclass(frozen=True)
class Cut:
    """Up to which offset each partition of the source topic is counted, as of `taken_at`."""

    topic: str
    lasts: Mapping[int, int]
    taken_at: datetime

    @property
    def newest(self) -> datetime:
        """Where the newest part begins; what is older is settled."""
        return floor(self.taken_at - SETTLE, Bucket.HOUR)

    @property
    def newest_quarter(self) -> datetime:
        """The same for models, which are compared by shorter spans."""
        return floor(self.taken_at - SETTLE, Bucket.QUARTER_HOUR)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "settled": _micros(self.newest),
            "in_flight": _micros(self.taken_at - IN_FLIGHT),
            "cut_partitions": list(self.lasts),
            "cut_lasts": list(self.lasts.values()),
        }


@dataclass(frozen=True)
class Inquiry:
    """What a book wants to know: the sums of windows, for the scope values of each. `seen` is the last offset that was
    counted, by source partition."""

    topic: str
    asked_at: datetime
    are_alerts_known: bool = False
    seen: dict[int, int] = field(default_factory=dict)
    windows: dict[Window, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class SnapshotAnswer:
    """`models` are by name, and have from minute `models_settled` on what is up to the cut."""

    base: Snapshot
    models: Mapping[str, list[Usage]]
    models_settled: int
    alerts: Mapping[str, datetime]


def answer(warehouse: Warehouse, inquiry: Inquiry) -> SnapshotAnswer:
    """Blocks; raises what the warehouse raises."""
    cut = take_cut(warehouse, inquiry.topic, inquiry.seen, inquiry.asked_at)
    sums = {window: found for window, values in inquiry.windows.items()
            if (found := _found(warehouse, window, values, cut)) is not None}  # fmt: skip
    models: defaultdict[str, list[Usage]] = defaultdict(list)
    for usage in model_history(warehouse, cut):
        models[usage.value].append(usage)
    alerts = {} if inquiry.are_alerts_known else known_alerts(warehouse, inquiry.asked_at)
    return SnapshotAnswer(Snapshot(cut.lasts, minutes(cut.newest), sums), models, minutes(cut.newest_quarter), alerts)


def _found(warehouse: Warehouse, window: Window, values: Collection[str], cut: Cut) -> dict[str, SpentSums] | None:
    """Sums of tags may be too much to ask for: None, and all others are told nevertheless."""
    try:
        return spent(warehouse, window, values, cut)
    except (DatabaseError, WarehouseUnavailableError) as error:
        if window.kind is not SubjectKind.TAG:
            raise
        metrics.RECONCILE_FAILURES.inc()
        log.warning("tags_not_summed", budgets_of_tags=len(values), reason=str(error)[:500])
        return None


def take_cut(warehouse: Warehouse, topic: str, seen: Mapping[int, int], now: datetime) -> Cut:
    """What is stored now, or seen as an increment, which comes after storing."""
    rows = warehouse.query(CUT, {"topic": topic, "since": _micros(Cut(topic, {}, now).newest)}, LIMITS)
    lasts = dict(seen)
    for row in rows:
        partition, last = int(row["partition"]), int(row["last"])
        lasts[partition] = max(last, lasts.get(partition, -1))
    return Cut(topic, lasts, now)


def spent(warehouse: Warehouse, window: Window, values: Collection[str], cut: Cut) -> dict[str, SpentSums]:
    """What each scope of the window has used up to the cut; each value is in it."""
    found = dict.fromkeys(values, SpentSums())
    for some in _portions(window.kind, sorted(values)):
        for row in _rows(warehouse, window, some, cut):
            if row["group_key"] in found:
                found[row["group_key"]] = SpentSums(row["requests"], row["tokens"], row["cost"])
    return found


def _portions(kind: SubjectKind, values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Who asks for more than MAX_VALUES groups reads them all (an empty portion); of tags nobody knows how many."""
    if len(values) > MAX_VALUES and SOURCES[kind].is_rolled_up:
        yield ()
        return
    for first in range(0, len(values), MAX_VALUES):
        yield values[first : first + MAX_VALUES]


def _rows(warehouse: Warehouse, window: Window, values: Sequence[str], cut: Cut) -> list[dict[str, Any]]:
    """Requests, tokens and cost by scope value; of every value if none is given."""
    source = SOURCES[window.kind]
    start, end = EPOCH + window.start * MINUTE, EPOCH + window.end * MINUTE
    raw_start = max(start, cut.newest) if source.is_rolled_up else start
    parameters = {**cut.parameters, "values": list(values), "start": _micros(raw_start), "end": _micros(end)}
    raw = RAW.substitute(
        key=source.key,
        join=source.join,
        condition=source.condition if values else "1",
        measures=", ".join(f"{measure.from_raw} AS {measure.name}" for measure in MEASURES),
        beyond=BEYOND,
    )
    branches = [raw]
    settled = Span(start, raw_start)
    if not settled.is_empty:
        sql, planned = compile_states(Question(MEASURES, settled, group_by=source.dimension))
        branches.append(sql)
        parameters |= planned
    sql = SPENT.substitute(branches="\nUNION ALL\n".join(branches), condition=OF_VALUES if values else "1")
    return warehouse.query(sql, parameters, LIMITS)


def model_history(warehouse: Warehouse, cut: Cut) -> list[Usage]:
    """Sums per model: per minute of late, per quarter of an hour before that, as far back as health compares."""
    compared = (model_health.BEFORE_MINUTES + model_health.WINDOW_MINUTES) * MINUTE
    oldest = floor(cut.taken_at, Bucket.QUARTER_HOUR) - compared
    sql = HISTORY.substitute(
        merged=", ".join(f"{m.merge.format(column=f'rollup_model.{m.name}')} AS {m.name}" for m in HEALTH_MEASURES),
        counted=", ".join(f"{m.from_raw} AS {m.name}" for m in HEALTH_MEASURES),
        beyond=BEYOND,
    )
    span = {"oldest": _micros(oldest), "newest": _micros(cut.newest_quarter)}
    rows = warehouse.query(sql, {**cut.parameters, **span}, LIMITS)
    last = minutes(cut.taken_at)
    return [
        Usage(
            SubjectKind.MODEL.value,
            row["model"],
            min(int(row["minute"]), last),
            row["requests"],
            row["errors"],
            row["unpriced"],
            0,
            NOTHING,
            row["duration_ms_sum"],
            row["duration_ms_count"],
        )
        for row in rows
    ]


def known_alerts(warehouse: Warehouse, now: datetime) -> dict[str, datetime]:
    """Alerts whose period is not over, by id, with its end: those are not to be given again."""
    rows = warehouse.query(KNOWN_ALERTS, {"now": _micros(now)})
    return {row["alert_id"]: EPOCH + int(row["period_end_ms"]) * MILLISECOND for row in rows}
