"""How long charts take over ten million requests, and how much memory; the targets are printed beside."""

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aggregator.clickhouse.client import Warehouse, WarehouseUnavailableError
from aggregator.clickhouse.migrate import migrate
from api.analytics.charts.query_runner import answer_custom_analytics
from api.analytics.charts.request import CustomAnalyticsQuery
from api.security.permissions import Caller, Scope
from api.security.reader import Reader
from tests.support.api import reader_for

ROUNDS = 15
CHUNK = 1_000_000
DAYS = 60
# The target is that every query runs under the last.
MEMORY_LIMITS_MB = (50, 100, 200, 400, 700, 1000)
ONE_DAY = {"field": "request_start_time", "operator": "between", "value": ["2026-02-10", "2026-02-10"]}

# Two months; 2,000 users of whom few send most, each with three of ten models; tags, and metadata of six keys, one of
# them different for every request.
FILL = """
INSERT INTO request_logs (timestamp, request_id, created_at, source_topic, source_partition, source_offset, provider,
    model_name, user_id, api_key_id, status, is_error, error_type, usage_source, input_tokens, output_tokens,
    cached_input_tokens, duration_ms, cost, tags, metadata, tool_names, tool_call_count, turn_count, prompt_id,
    prompt_version_number, session_id, is_json)
WITH toUInt32(2000 * pow(cityHash64(number, 1) % 1000000 / 1000000, 3)) AS user,
    (user + cityHash64(number, 7) % 3) % 10 AS model, cityHash64(number, 9) AS noise
SELECT toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(
        toUInt64(number * {step_us:UInt64} + noise % {step_us:UInt64})),
    concat('req-', toString(number)), now64(3), 'request-events', number % 6, number,
    ['openai', 'anthropic', 'google', 'deepseek'][1 + model % 4],
    concat('model-', toString(model)), concat('user-', toString(user)), concat('key-', toString(user % 300)),
    if(noise % 50 = 0, 'error', 'success'), noise % 50 = 0,
    if(noise % 50 = 0, ['PROVIDER_TIMEOUT', 'PROVIDER_ERROR'][1 + noise % 2], ''), 'reported',
    100 + noise % 30000, noise % 4000, noise % 100, 200 + noise % 60000, toDecimal64(noise % 100000 / 1000000, 12),
    arrayFilter(tag -> cityHash64(tag, number) % 3 = 0, ['production', 'batch', 'nightly', 'eval']),
    format('{{"environment":"{}","team":"team-{}","region":"eu-{}","attempt":{},"cached":{},"trace":"{}"}}',
        ['prod', 'staging', 'dev'][1 + noise % 3], toString(user % 40), toString(noise % 5), toString(noise % 4),
        if(noise % 2 = 0, 'true', 'false'), hex(noise)),
    if(noise % 4 = 0, ['search', 'send_email'], []), noise % 4, noise % 7, if(noise % 3 = 0, toString(noise % 50), ''),
    if(noise % 3 = 0, noise % 9, NULL), concat('session-', toString(intDiv(number, 20))), noise % 5 = 0
FROM numbers({first:UInt64}, {rows:UInt64})
"""


def _fill(warehouse: Warehouse, rows: int) -> None:
    for first in range(0, rows, CHUNK):
        warehouse.client.command(
            FILL,
            {"first": first, "rows": min(CHUNK, rows - first), "step_us": DAYS * 86_400_000_000 // rows},
            settings={"async_insert": 0, "max_insert_threads": 2},
        )
        print(f"\r{first + CHUNK:,} rows", end="", file=sys.stderr, flush=True)
    warehouse.command("OPTIMIZE TABLE request_logs")
    print(file=sys.stderr)


def _chart(**properties: Any) -> dict[str, Any]:
    return {"id": "c", "chartType": "bar", "metric": "count", **properties}


def _filter(field: str, operator: str, value: Any = None, nested_key: str | None = None) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value, "nested_key": nested_key}


COST, P95 = (
    {"metric": "sum", "metricField": "cost"},
    {"metric": "percentile", "metricField": "latency_ms", "percentile": 95},
)
ROLLUPS = {
    "cost by model, everything": (_chart(**COST, groupByField="engine"), []),
    "requests by user, everything": (_chart(groupByField="user_id"), []),
    "latency by hour, four days": (
        _chart(metric="avg", metricField="latency_ms", timeSeries=True),
        [{**ONE_DAY, "value": ["2026-02-10", "2026-02-13"]}],
    ),
    "cost by hour of a model, four days": (
        _chart(**COST, timeSeries=True),
        [{**ONE_DAY, "value": ["2026-02-10", "2026-02-13"]}, _filter("engine", "is", "model-3")],
    ),
    "requests by day and model, everything": (_chart(groupByField="engine", timeSeries=True), []),
}
RAW_FILTERS = {
    "cost > 0.05": _filter("cost", "gt", 0.05),
    "tag production": _filter("tags", "contains", "production"),
    "metadata team": _filter("metadata", "key_equals", "team-7", "team"),
    "metadata attempt not": _filter("metadata", "key_not_equals", 3, "attempt"),
    "tool send_email": _filter("tool_names", "in", ["send_email", "x"]),
    "session": _filter("session_id", "is", "session-77"),
}
METRICS: dict[str, Mapping[str, Any]] = {
    "count": {},
    "cost": COST,
    "p95": P95,
    "max": {"metric": "max", "metricField": "output_tokens"},
}
BREAKDOWNS = {
    "requests by environment": _chart(groupByMetadataKey="environment"),
    "cost by team": _chart(**COST, groupByMetadataKey="team"),
    "requests by cached": _chart(groupByMetadataKey="cached"),
}
HEAVY: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "cost by session": (_chart(**COST, groupByField="session_id"), []),
    "p95 by user": (_chart(**P95, groupByField="user_id"), []),
    "requests by trace (all different)": (_chart(groupByMetadataKey="trace"), []),
    "distinct traces": (_chart(metric="distinct_count", distinctMetadataKey="trace"), []),
    "heatmap tags x team": (
        {**_chart(groupByField="tags", secondaryGroupByMetadataKey="team"), "chartType": "heatmap"},
        [],
    ),
}


def _cases() -> list[tuple[str, dict[str, Any], list[dict[str, Any]], float | None]]:
    """(name, chart, filters, target of the median in ms)."""
    cases: list[tuple[str, dict[str, Any], list[dict[str, Any]], float | None]] = [
        (f"rollup: {name}", chart, filters, 50.0) for name, (chart, filters) in ROLLUPS.items()
    ]
    for name, leaf in RAW_FILTERS.items():
        for metric, asked in METRICS.items():
            cases.append((f"day, {name}: {metric}", _chart(**asked), [ONE_DAY, leaf], 200.0))
            cases.append((f"all, {name}: {metric}", _chart(**asked), [leaf], 1000.0))
    cases += [(f"metadata: {name}", chart, [], 500.0) for name, chart in BREAKDOWNS.items()]
    cases += [(f"heavy: {name}", chart, filters, None) for name, (chart, filters) in HEAVY.items()]
    return cases


def _ask(reader: Reader, chart: dict[str, Any], filters: list[dict[str, Any]]) -> None:
    query = CustomAnalyticsQuery.model_validate({"customCharts": [chart], "filter_group": {"filters": filters}})
    answer_custom_analytics(reader, query)


def _measure(reader: Reader, chart: dict[str, Any], filters: list[dict[str, Any]]) -> list[float]:
    """Milliseconds of each round but the first."""
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        _ask(reader, chart, filters)
        times.append((time.perf_counter() - started) * 1000)
        if sum(times) > 10_000:
            break
    return times[1:] or times


def _memory_limit_mb(warehouse: Warehouse, chart: dict[str, Any], filters: list[dict[str, Any]]) -> int | None:
    """The lowest of MEMORY_LIMITS_MB under which the queries run; None if they need more."""
    for limit in MEMORY_LIMITS_MB:
        try:
            _ask(_reader(warehouse, limit), chart, filters)
        except WarehouseUnavailableError:  # what ClickHouse's memory limit becomes
            continue
        return limit
    return None


def _reader(warehouse: Warehouse, limit_mb: int) -> Reader:
    return reader_for(warehouse, Caller("bench", frozenset({Scope.ADMIN})), max_memory_usage=limit_mb * 1_000_000)


def run(rows: int, folder: Path) -> bool:
    """Print the table, over rows that are kept in the folder. Returns whether every target was met."""
    warehouse = Warehouse(f"chdb://{folder.resolve()}")
    migrate(warehouse)
    if warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"] < rows:
        _fill(warehouse, rows)
    table = Table("query", "p50 ms", "p95 ms", "target", "memory MB <", title=f"{rows:,} requests")
    is_met = True
    for name, chart, filters, target in _cases():
        times = _measure(_reader(warehouse, MEMORY_LIMITS_MB[-1]), chart, filters)
        p50, p95 = statistics.median(times), sorted(times)[int(0.95 * (len(times) - 1))]
        memory = _memory_limit_mb(warehouse, chart, filters)
        is_good = (target is None or p50 <= target) and memory is not None
        is_met = is_met and is_good
        style = None if is_good else "red"
        table.add_row(
            name,
            f"{p50:.0f}",
            f"{p95:.0f}",
            f"{target:.0f}" if target else "",
            f"{memory}" if memory else "more",
            style=style,
        )
    Console(width=110).print(table)
    warehouse.close()
    return is_met
