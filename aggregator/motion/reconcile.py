"""What ClickHouse says: the base of every account, and how far each source partition is in it.

Rollups say nothing about offsets, so the newest part comes from raw rows, up to a cut of offsets that was taken
before: rows that a batch adds meanwhile are beyond it and come as an increment. What is older comes from rollups
through the planner. A late row that is stored in the very moment of a reconcile, with a timestamp before the newest
part, may be missing or counted twice until the next one.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from string import Template
from typing import Any

from aggregator.catalogue import (
    COST,
    DURATION_COUNT,
    DURATION_SUM,
    ERRORS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    UNPRICED,
    Dimension,
)
from aggregator.motion import health
from aggregator.motion.budget import Unit
from aggregator.motion.increment import Usage
from aggregator.motion.ledger import MINUTE, NOTHING, Account, minutes
from aggregator.motion.scope import ScopeKind
from aggregator.planner import EPOCH, Question, Span, compile_states, micros
from aggregator.warehouse import Warehouse

# A batch is stored within this, or fails. Rows that are beyond the cut are younger.
IN_FLIGHT = timedelta(minutes=10)
# Requests of an hour that has ended are taken from rollups once this has passed.
SETTLE = timedelta(minutes=5)
MILLISECOND = timedelta(milliseconds=1)
HOUR, QUARTER = timedelta(hours=1), timedelta(minutes=15)
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
    ScopeKind.TOTAL: _ScopeSource(),
    ScopeKind.MODEL: _dimension(Dimension.MODEL),
    ScopeKind.USER: _dimension(Dimension.USER),
    ScopeKind.API_KEY: _dimension(Dimension.API_KEY),
    # No rollup holds tags. A tag that a request has twice counts once.
    ScopeKind.TAG: _ScopeSource(
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
    source_topic = {topic:String} AND created_at >= fromUnixTimestamp64Micro({in_flight:Int64}, 'UTC')
    AND toInt64(source_offset) >
        transform(source_partition, {cut_partitions:Array(UInt32)}, {cut_lasts:Array(Int64)}, toInt64(-1))
)"""
# What stands behind $ comes from code, see below; values are bound.
NEWEST = Template("""
SELECT $key AS group_key, $measures FROM request_logs $join
WHERE timestamp >= fromUnixTimestamp64Micro({newest:Int64}, 'UTC')
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


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment - (moment - EPOCH) % step


@dataclass(frozen=True)
class Cut:
    """Up to which offset each partition of the source topic is counted, as of `taken_at`."""

    topic: str
    lasts: Mapping[int, int]
    taken_at: datetime

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "in_flight": _micros(self.taken_at - IN_FLIGHT),
            "cut_partitions": list(self.lasts),
            "cut_lasts": list(self.lasts.values()),
        }


def take_cut(warehouse: Warehouse, topic: str, seen: Iterable[Mapping[int, int]], now: datetime) -> Cut:
    """What is stored now, or seen as an increment, which comes after storing."""
    rows = warehouse.query(CUT, {"topic": topic, "since": _micros(now - HOUR)})
    lasts = {int(row["partition"]): int(row["last"]) for row in rows}
    for known in seen:
        for partition, last in known.items():
            lasts[partition] = max(last, lasts.get(partition, -1))
    return Cut(topic, lasts, now)


def spent(warehouse: Warehouse, accounts: Collection[Account], cut: Cut) -> dict[str, Decimal]:
    """What each account's scope has spent in its span up to the cut, by budget id: one query for all accounts of
    a kind of scope and span."""
    groups: defaultdict[tuple[ScopeKind, int, int], list[Account]] = defaultdict(list)
    for account in accounts:
        groups[(account.budget.scope.kind, account.start, account.end)].append(account)
    found: dict[str, Decimal] = {}
    for (kind, start, end), members in groups.items():
        span = Span(EPOCH + start * MINUTE, EPOCH + end * MINUTE)
        values = {account.budget.scope.value for account in members}
        sums = _sums(warehouse, kind, span, values, cut)
        for account in members:
            row = sums.get(account.budget.scope.value)
            found[account.budget.id] = _in_unit(account.budget.unit, row) if row else NOTHING
    return found


def _in_unit(unit: Unit, row: Mapping[str, Any]) -> Decimal:
    column = {Unit.DOLLARS: "cost", Unit.TOKENS: "tokens", Unit.REQUESTS: "requests"}[unit]
    return Decimal(row[column])


def _sums(
    warehouse: Warehouse, kind: ScopeKind, span: Span, values: Collection[str], cut: Cut
) -> dict[str, dict[str, Any]]:
    """Requests, tokens and cost of a bounded span by scope value."""
    source = SOURCES[kind]
    is_few = len(values) <= MAX_VALUES
    newest = max(span.start or EPOCH, _floor(cut.taken_at - SETTLE, HOUR)) if source.is_rolled_up else span.start
    parameters: dict[str, Any] = {**cut.parameters, "values": list(values) if is_few else []}
    parameters |= {"newest": _micros(newest or EPOCH), "end": _micros(span.end or FAR)}
    measures = ", ".join(f"{measure.from_raw} AS {measure.name}" for measure in MEASURES)
    branches = [
        NEWEST.substitute(
            key=source.key,
            join=source.join,
            condition=source.condition if is_few else "1",
            measures=measures,
            beyond=BEYOND,
        )
    ]
    settled = Span(span.start, newest)
    if not settled.is_empty:
        sql, planned = compile_states(Question(MEASURES, settled, group_by=source.dimension))
        branches.append(sql)
        parameters |= planned
    rows = warehouse.query(
        SPENT.substitute(branches="\nUNION ALL\n".join(branches), condition=OF_VALUES if is_few else "1"), parameters
    )
    return {row["group_key"]: row for row in rows}


def model_history(warehouse: Warehouse, cut: Cut) -> list[Usage]:
    """Sums per model: per minute of late, per quarter of an hour before that, as far back as health compares."""
    newest = _floor(cut.taken_at - SETTLE, QUARTER)
    oldest = _floor(cut.taken_at, QUARTER) - (health.BEFORE_MINUTES + health.WINDOW_MINUTES) * MINUTE
    sql = HISTORY.substitute(
        merged=", ".join(f"{m.merge.format(column=f'rollup_model.{m.name}')} AS {m.name}" for m in HEALTH_MEASURES),
        counted=", ".join(f"{m.from_raw} AS {m.name}" for m in HEALTH_MEASURES),
        beyond=BEYOND,
    )
    rows = warehouse.query(sql, {**cut.parameters, "oldest": _micros(oldest), "newest": _micros(newest)})
    last = minutes(cut.taken_at)
    return [
        Usage(
            ScopeKind.MODEL.value,
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
