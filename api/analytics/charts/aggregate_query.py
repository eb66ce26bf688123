"""Aggregate queries: what charts want of the requests that a filter leaves, as rows of keys and values.

Those of the same grouping become one statement, answered from a rollup where one holds everything that is asked, else
from raw rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aggregator.clickhouse.sql import Binder, all_of, time_range
from aggregator.clickhouse.tables import REQUEST_LOGS
from aggregator.rollups.measures import Bucket
from aggregator.rollups.planner import Question, bucket_key, compile_states, plan
from api.analytics.charts.metric_sql import (
    COUNT,
    FIRST_SECONDS,
    LAST_SECONDS,
    Value,
    raw_sql,
    rollup_measures,
    rollup_sql,
    sketch_flag_sql,
)
from api.analytics.charts.request import ChartMetric
from api.analytics.filters.compile import nested_values
from api.analytics.filters.fields import BY_NAME, FieldKind
from api.analytics.where import RequestFilter


@dataclass(frozen=True)
class GroupKey:
    """The value of a field, or of a metadata key. Requests without one are left out; those with
    several count under each."""

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
    """The keys of the rows. `within` names the groups to keep for each key, None for all of them."""

    keys: tuple[Key, ...] = ()
    within: tuple[tuple[str, ...] | None, ...] = ()


@dataclass(frozen=True)
class AggregateQuery:
    """Values for each row of a grouping, and only the `limit` rows that are largest in the first value."""

    grouping: Grouping
    values: tuple[Value, ...]
    limit: int | None = None


# How many requests there are, and when the first and the last of them started.
EXTENT = AggregateQuery(Grouping(), (COUNT, FIRST_SECONDS, LAST_SECONDS))


@dataclass(frozen=True)
class AggregateRow:
    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    is_sketch: bool


@dataclass(frozen=True)
class Statement:
    """SQL for all of `queries`; its columns are k0, ... for the keys and v0, ..., s0, ... for `values`."""

    sql: str
    parameters: dict[str, Any]
    queries: tuple[AggregateQuery, ...]
    values: tuple[Value, ...]

    def rows_for(self, query: AggregateQuery, found: Sequence[dict[str, Any]]) -> list[AggregateRow]:
        """The rows of one of `queries`, at most its limit: largest first (NULL last), ties by key."""
        places = [self.values.index(value) for value in query.values]
        rows = [
            AggregateRow(
                tuple(row[f"k{n}"] for n in range(len(query.grouping.keys))),
                tuple(row[f"v{n}"] for n in places),
                any(row.get(f"s{n}", 0) for n in places),
            )
            for row in found
        ]
        rows.sort(key=lambda row: row.keys)
        rows.sort(key=lambda row: (row.values[0] is not None, row.values[0] or 0), reverse=True)
        return rows[: query.limit]


def _rollup_question(request_filter: RequestFilter, grouping: Grouping, values: Sequence[Value]) -> Question | None:
    """The question for the planner, None if no rollup answers it."""
    groups = [key for key in grouping.keys if isinstance(key, GroupKey)]
    times = [key for key in grouping.keys if isinstance(key, TimeKey)]
    dimensions = [BY_NAME[group.field].dimension for group in groups]
    measures = [rollup_measures(value) for value in values]
    if len(groups) > 1 or len(groups) + len(times) < len(grouping.keys) or None in dimensions or not all(measures):
        return None
    question = Question(
        measures=tuple(dict.fromkeys(measure for needed in measures for measure in needed)),
        span=request_filter.span,
        group_by=dimensions[0] if dimensions else times[0].bucket if times else None,
        timezone=times[0].timezone if times else "UTC",
        condition=request_filter.condition,
        bucket=times[0].bucket if times and groups else None,
        confined_to=request_filter.confined_to,
    )
    return question if plan(question).rollup is not None else None


def source_of(request_filter: RequestFilter, query: AggregateQuery) -> str:
    """The table that answers a query; both kinds give the same answer."""
    question = _rollup_question(request_filter, query.grouping, query.values)
    rollup = plan(question).rollup if question else None
    return rollup.table if rollup else REQUEST_LOGS


def statements(request_filter: RequestFilter, queries: Sequence[AggregateQuery]) -> list[Statement]:
    """One for each grouping and source."""
    merged: dict[tuple[Grouping, bool], list[AggregateQuery]] = {}
    for query in dict.fromkeys(queries):
        from_rollup = _rollup_question(request_filter, query.grouping, query.values) is not None
        merged.setdefault((query.grouping, from_rollup), []).append(query)
    return [_statement(request_filter, grouping, same) for (grouping, _), same in merged.items()]


def _statement(request_filter: RequestFilter, grouping: Grouping, queries: list[AggregateQuery]) -> Statement:
    values = tuple(dict.fromkeys(value for query in queries for value in query.values))
    question = _rollup_question(request_filter, grouping, values)
    if question is not None:
        sql, parameters = _over_rollup(question, grouping, values)
    else:
        sql, parameters = _over_rows(request_filter, grouping, values)
    return Statement(
        f"SELECT * FROM (\n{sql}\n){_qualify(grouping, queries, values)}", parameters, tuple(queries), values
    )


def _qualify(grouping: Grouping, queries: list[AggregateQuery], values: Sequence[Value]) -> str:
    """SQL that keeps only the rows that some query returns; "" if one of them has no limit."""
    if any(query.limit is None for query in queries):
        return ""
    keys = ", ".join(f"k{n}" for n in range(len(grouping.keys)))
    limits: dict[int, int] = {}
    for query in queries:
        place = values.index(query.values[0])
        limits[place] = max(limits.get(place, 0), query.limit or 0)
    orders = {place: f"ORDER BY v{place} DESC NULLS LAST, {keys}" for place in limits}
    if len(limits) == 1:
        # LIMIT keeps the largest while it reads; a window sorts all rows.
        return "".join(f"\n{orders[place]} LIMIT {limit}" for place, limit in limits.items())
    ranks = (f"row_number() OVER ({orders[place]}) <= {limit}" for place, limit in limits.items())
    return f"\nQUALIFY {' OR '.join(ranks)}"


def _over_rollup(question: Question, grouping: Grouping, values: Sequence[Value]) -> tuple[str, dict[str, Any]]:
    states, parameters = compile_states(question)
    binder = Binder(parameters)
    names = ("group_key", "bucket_key")[: len(grouping.keys)]
    present = [f"{name} != ''" for name, key in zip(names, grouping.keys, strict=True) if isinstance(key, GroupKey)]
    for name, within in zip(names, grouping.within, strict=False):
        if within is not None:
            present.append(f"{name} IN {binder.texts(list(within))}")
    columns = [f"{name} AS k{n}" for n, name in enumerate(names)]
    columns += [f"{rollup_sql(value)} AS v{n}" for n, value in enumerate(values)]
    grouped = f"\nGROUP BY {', '.join(names)}" if names else ""
    inner = f"SELECT {', '.join(columns)}\nFROM (\n{states}\n) AS states\nWHERE {all_of(*present)}{grouped}"
    return inner, binder.parameters


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
        if spec.kind is FieldKind.ARRAY:
            return self._each(place, f"arrayDistinct({spec.column})", within)
        column = spec.text_column
        if spec.kind is FieldKind.NUMERIC:
            self.where.append(f"isNotNull({column})")
            column = f"toString(assumeNotNull({column}))"
        else:
            self.where.append(f"{column} != ''")
        if within is not None:
            self.where.append(f"{column} IN {self.binder.texts(list(within))}")
        return column

    def _each(self, place: int, values: str, within: tuple[str, ...] | None) -> str:
        """SQL for one row per value; the values are distinct."""
        if within is not None:
            values = f"arrayFilter(item -> has({self.binder.texts(list(within))}, item), {values})"
        # ClickHouse joins equal arrays once; the slice makes the second one another.
        return f"arrayJoin(arraySlice({values}, 1))" if place else f"arrayJoin({values})"


def _over_rows(
    request_filter: RequestFilter, grouping: Grouping, values: Sequence[Value]
) -> tuple[str, dict[str, Any]]:
    span, condition = request_filter.span, request_filter.condition
    sql = _RawSql(condition.binder(), [time_range("timestamp", span), condition.sql])
    within = grouping.within or (None,) * len(grouping.keys)
    columns = [f"{sql.key(n, key, within[n])} AS k{n}" for n, key in enumerate(grouping.keys)]
    for n, value in enumerate(values):
        columns.append(f"{raw_sql(value, sql.binder, values)} AS v{n}")
        if value.metric is ChartMetric.PERCENTILE:
            columns.append(f"{sketch_flag_sql(value)} AS s{n}")
    keys = ", ".join(f"k{n}" for n in range(len(grouping.keys)))
    grouped = f"\nGROUP BY {keys}" if keys else ""
    inner = f"SELECT {', '.join(columns)}\nFROM request_logs\nWHERE {all_of(*sql.where)}{grouped}"
    return inner, sql.binder.parameters
