"""One pass over the requests that a query means: rows of keys and values.

Charts ask for passes. Those over the same keys become one statement, answered from a rollup where one holds
everything that is asked, else from raw rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aggregator.rollups.measures import Bucket
from aggregator.rollups.planner import Question, bucket_key, compile_states, plan
from aggregator.times import micros
from api.analytics.charts.metric_sql import Value, raw_sql, rollup_measures, rollup_sql, sketch_flag_sql
from api.analytics.charts.request import ChartMetric
from api.analytics.filters.compile import Binder, nested_values
from api.analytics.filters.fields import BY_NAME, Kind
from api.analytics.where import RequestFilter


@dataclass(frozen=True)
class GroupKey:
    """A field's value, or a metadata key's; what has none is left out, and what has several counts under each."""

    field: str
    metadata_key: str | None = None


@dataclass(frozen=True)
class TimeKey:
    """The start of the bucket in Unix seconds."""

    bucket: Bucket
    timezone: str


@dataclass(frozen=True)
class BinKey:
    """The number of the bin: `width * number <= value < width * (number + 1)`."""

    field: str
    width: float


Key = GroupKey | TimeKey | BinKey


@dataclass(frozen=True)
class Grouping:
    """The keys of the rows; `within` leaves only these groups of the key at the same place."""

    keys: tuple[Key, ...] = ()
    within: tuple[tuple[str, ...] | None, ...] = ()


@dataclass(frozen=True)
class AggregateQuery:
    """What one chart wants of a scan: values, and only the `limit` rows that are largest in the first of them."""

    scan: Grouping
    values: tuple[Value, ...]
    limit: int | None = None


@dataclass(frozen=True)
class AggregateRow:
    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    is_sketch: bool


@dataclass(frozen=True)
class Statement:
    """One query, for all of `asks`; its columns are k0, ... for the keys and v0, ..., s0, ... for `values`."""

    sql: str
    parameters: dict[str, Any]
    asks: tuple[AggregateQuery, ...]
    values: tuple[Value, ...]

    def rows_for(self, ask: AggregateQuery, found: Sequence[dict[str, Any]]) -> list[AggregateRow]:
        """Largest first (NULL last), ties by key; as many as were asked for."""
        places = [self.values.index(value) for value in ask.values]
        rows = [
            AggregateRow(
                tuple(row[f"k{n}"] for n in range(len(ask.scan.keys))),
                tuple(row[f"v{n}"] for n in places),
                any(row.get(f"s{n}", 0) for n in places),
            )
            for row in found
        ]
        rows.sort(key=lambda row: row.keys)
        rows.sort(key=lambda row: (row.values[0] is not None, row.values[0] or 0), reverse=True)
        return rows[: ask.limit]


def _rollup_question(scope: RequestFilter, scan: Grouping, values: Sequence[Value]) -> Question | None:
    """The scan as a question, if there is a rollup that answers it."""
    groups = [key for key in scan.keys if isinstance(key, GroupKey)]
    times = [key for key in scan.keys if isinstance(key, TimeKey)]
    dimensions = [BY_NAME[group.field].dimension for group in groups]
    measures = [rollup_measures(value) for value in values]
    if len(groups) > 1 or len(groups) + len(times) < len(scan.keys) or None in dimensions or not all(measures):
        return None
    question = Question(
        measures=tuple(dict.fromkeys(measure for needed in measures for measure in needed)),
        span=scope.span,
        group_by=dimensions[0] if dimensions else times[0].bucket if times else None,
        timezone=times[0].timezone if times else "UTC",
        condition=scope.condition,
        bucket=times[0].bucket if times and groups else None,
        confined_to=scope.confined_to,
    )
    return question if plan(question).rollup is not None else None


def statements(scope: RequestFilter, asks: Sequence[AggregateQuery]) -> list[Statement]:
    """As few as can be: one per scan and source."""
    merged: dict[tuple[Grouping, bool], list[AggregateQuery]] = {}
    for ask in dict.fromkeys(asks):
        from_rollup = _rollup_question(scope, ask.scan, ask.values) is not None
        merged.setdefault((ask.scan, from_rollup), []).append(ask)
    return [_statement(scope, scan, same) for (scan, _), same in merged.items()]


def _statement(scope: RequestFilter, scan: Grouping, asks: list[AggregateQuery]) -> Statement:
    values = tuple(dict.fromkeys(value for ask in asks for value in ask.values))
    question = _rollup_question(scope, scan, values)
    if question is not None:
        sql, parameters = _over_rollup(question, scan, values)
    else:
        sql, parameters = _over_rows(scope, scan, values)
    return Statement(f"SELECT * FROM (\n{sql}\n){_qualify(scan, asks, values)}", parameters, tuple(asks), values)


def _qualify(scan: Grouping, asks: list[AggregateQuery], values: Sequence[Value]) -> str:
    """Only the rows that some ask will show."""
    if any(ask.limit is None for ask in asks):
        return ""
    keys = ", ".join(f"k{n}" for n in range(len(scan.keys)))
    limits: dict[int, int] = {}
    for ask in asks:
        place = values.index(ask.values[0])
        limits[place] = max(limits.get(place, 0), ask.limit or 0)
    orders = {place: f"ORDER BY v{place} DESC NULLS LAST, {keys}" for place in limits}
    if len(limits) == 1:
        # Keeps the best while it reads; a window sorts all of them.
        return "".join(f"\n{orders[place]} LIMIT {limit}" for place, limit in limits.items())
    ranks = (f"row_number() OVER ({orders[place]}) <= {limit}" for place, limit in limits.items())
    return f"\nQUALIFY {' OR '.join(ranks)}"


def _over_rollup(question: Question, scan: Grouping, values: Sequence[Value]) -> tuple[str, dict[str, Any]]:
    states, parameters = compile_states(question)
    binder = Binder("w")
    names = ("group_key", "bucket_key")[: len(scan.keys)]
    present = [f"{name} != ''" for name, key in zip(names, scan.keys, strict=True) if isinstance(key, GroupKey)]
    for name, within in zip(names, scan.within, strict=False):
        if within is not None:
            present.append(f"{name} IN {binder.texts(list(within))}")
    columns = [f"{name} AS k{n}" for n, name in enumerate(names)]
    columns += [f"{rollup_sql(value)} AS v{n}" for n, value in enumerate(values)]
    grouped = f"\nGROUP BY {', '.join(names)}" if names else ""
    inner = f"SELECT {', '.join(columns)}\nFROM (\n{states}\n) AS states\nWHERE {' AND '.join(present) or '1'}{grouped}"
    return inner, {**parameters, **binder.parameters}


@dataclass
class _RawSql:
    binder: Binder
    where: list[str]

    def key(self, place: int, key: Key, within: tuple[str, ...] | None) -> str:
        if isinstance(key, TimeKey):
            return bucket_key("timestamp", key.bucket, self.binder.text(key.timezone))
        if isinstance(key, BinKey):
            column = f"request_logs.{BY_NAME[key.field].column}"
            self.where.append(f"isNotNull({column})")
            return f"toInt64(floor(toFloat64(assumeNotNull({column})) / {self.binder.bind(key.width, 'Float64')}))"
        if key.metadata_key is not None:
            return self._each(place, nested_values(BY_NAME["metadata"], key.metadata_key, self.binder), within)
        spec = BY_NAME[key.field]
        if spec.kind is Kind.ARRAY:
            return self._each(place, f"arrayDistinct({spec.column})", within)
        column = spec.column
        if spec.kind is Kind.NUMERIC:
            self.where.append(f"isNotNull({column})")
            column = f"toString(assumeNotNull({column}))"
        else:
            self.where.append(f"{column} != ''")
        if within is not None:
            self.where.append(f"{column} IN {self.binder.texts(list(within))}")
        return column

    def _each(self, place: int, values: str, within: tuple[str, ...] | None) -> str:
        """One row per value, all of which are different."""
        if within is not None:
            values = f"arrayFilter(item -> has({self.binder.texts(list(within))}, item), {values})"
        # The same array joined twice would be joined once.
        return f"arrayJoin(arraySlice({values}, 1))" if place else f"arrayJoin({values})"

    def instant(self, name: str, moment: Any) -> str:
        return f"timestamp {name} {self.binder.instant(micros(moment))}"


def _over_rows(scope: RequestFilter, scan: Grouping, values: Sequence[Value]) -> tuple[str, dict[str, Any]]:
    span, condition = scope.span, scope.condition
    sql = _RawSql(Binder("w"), [])
    if span.start is not None:
        sql.where.append(sql.instant(">=", span.start))
    if span.end is not None:
        sql.where.append(sql.instant("<", span.end))
    if condition.sql != "1":
        sql.where.append(condition.sql)
    within = scan.within or (None,) * len(scan.keys)
    columns = [f"{sql.key(n, key, within[n])} AS k{n}" for n, key in enumerate(scan.keys)]
    for n, value in enumerate(values):
        columns.append(f"{raw_sql(value, sql.binder, values)} AS v{n}")
        if value.metric is ChartMetric.PERCENTILE:
            columns.append(f"{sketch_flag_sql(value)} AS s{n}")
    keys = ", ".join(f"k{n}" for n in range(len(scan.keys)))
    grouped = f"\nGROUP BY {keys}" if keys else ""
    where = " AND ".join(sql.where) or "1"
    inner = f"SELECT {', '.join(columns)}\nFROM request_logs\nWHERE {where}{grouped}"
    return inner, {**condition.parameters, **sql.binder.parameters}
