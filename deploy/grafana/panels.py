"""The panels of the dashboards: one SQL statement and the units of its columns for each.

A panel reads rollups wherever they have the columns; one that reads rows gives the reason in its description. Sums of
SimpleAggregateFunction columns are plain sums; the histogram is finished as `rollups.measures` defines it. `time` is
the axis, and text columns name the series.
"""

from dataclasses import dataclass, field
from typing import Literal

from aggregator.rollups.measures import DURATION_HISTOGRAM

DOLLARS, COUNT, SHARE, MS, SECONDS, TEXT, TIME = (
    "currencyUSD", "short", "percentunit", "ms", "s", "", "dateTimeAsIso"
)  # fmt: skip
# Grafana's variables; the choice `All` adds no condition.
MODEL = "$__conditionalAll(model_name IN (${model:sqlstring}), $model)"
USER = "$__conditionalAll(user_id IN (${user:sqlstring}), $user)"
KEY = "$__conditionalAll(api_key_id IN (${key:sqlstring}), $key)"
IN_TIME, IN_TIME_RAW = "$__timeFilter(bucket)", "$__timeFilter_ms(timestamp)"
BY_TIME = "$__timeInterval(bucket) AS time"


@dataclass(frozen=True)
class GrafanaPanel:
    """`units` are the columns of the result, in order. `link` is a column of request ids, which link to the API."""

    title: str
    kind: Literal["timeseries", "stat", "table"]
    sql: str
    units: dict[str, str]
    width: int = 12
    height: int = 8
    link: str = ""
    description: str = ""


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    description: str
    panels: tuple[GrafanaPanel, ...]
    variables: dict[str, str] = field(default_factory=dict)


VALUES_OF_MODEL = f"SELECT DISTINCT model_name FROM rollup_model WHERE {IN_TIME} ORDER BY model_name LIMIT 1000"
VALUES_OF_USER = f"SELECT user_id FROM rollup_user WHERE {IN_TIME} GROUP BY user_id ORDER BY sum(cost) DESC LIMIT 500"
VALUES_OF_KEY = (
    f"SELECT api_key_id FROM rollup_user WHERE {IN_TIME} GROUP BY api_key_id ORDER BY sum(cost) DESC LIMIT 500"
)

SPEND = Board(
    "insights-spend",
    "Spend and usage",
    "Who spent what, on which model, when.",
    (
        GrafanaPanel("Cost", "stat", f"SELECT toFloat64(sum(r.cost)) AS cost FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY}",
              {"cost": DOLLARS}, 6, 4),
        GrafanaPanel("Requests", "stat", f"SELECT sum(r.requests) AS requests FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY}",
              {"requests": COUNT}, 6, 4),
        GrafanaPanel("Tokens", "stat", f"SELECT sum(r.input_tokens) AS input, sum(r.output_tokens) AS output FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY}",
              {"input": COUNT, "output": COUNT}, 6, 4),
        GrafanaPanel("Requests without a cost", "stat", f"SELECT sum(r.unpriced) AS no_price, sum(r.missing_usage) AS no_usage FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY}",
              {"no_price": COUNT, "no_usage": COUNT}, 6, 4, description="No price is known, or a request that succeeded reported no usage. They are not in any sum of costs. Requests that failed without usage are not counted here."),
        GrafanaPanel("Cost by model", "timeseries", f"SELECT {BY_TIME}, model_name AS model, toFloat64(sum(r.cost)) AS cost FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY} GROUP BY time, model ORDER BY time",
              {"time": TIME, "model": TEXT, "cost": DOLLARS}),
        GrafanaPanel("Tokens by kind", "timeseries", f"SELECT {BY_TIME}, sum(r.input_tokens) - sum(r.cached_input_tokens) - sum(r.cache_creation_input_tokens) AS uncached_input, sum(r.cached_input_tokens) AS cached_input, sum(r.cache_creation_input_tokens) AS cache_creation, sum(r.output_tokens) AS output FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY} GROUP BY time ORDER BY time",
              {"time": TIME, "uncached_input": COUNT, "cached_input": COUNT, "cache_creation": COUNT, "output": COUNT}),
        GrafanaPanel("Models", "table", f"SELECT provider, model_name AS model, toFloat64(sum(r.cost)) AS cost, sum(r.requests) AS requests, sum(r.errors) AS errors, sum(r.input_tokens) AS input_tokens, sum(r.output_tokens) AS output_tokens FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY provider, model ORDER BY cost DESC LIMIT 100",
              {"provider": TEXT, "model": TEXT, "cost": DOLLARS, "requests": COUNT, "errors": COUNT, "input_tokens": COUNT, "output_tokens": COUNT}),
        GrafanaPanel("Users", "table", f"SELECT user_id AS user, toFloat64(sum(r.cost)) AS cost, sum(r.requests) AS requests, sum(r.input_tokens) AS input_tokens, sum(r.output_tokens) AS output_tokens FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY} GROUP BY user ORDER BY cost DESC LIMIT 100",
              {"user": TEXT, "cost": DOLLARS, "requests": COUNT, "input_tokens": COUNT, "output_tokens": COUNT}),
        GrafanaPanel("API keys", "table", f"SELECT api_key_id AS api_key, toFloat64(sum(r.cost)) AS cost, sum(r.requests) AS requests FROM rollup_user AS r WHERE {IN_TIME} AND {MODEL} AND {USER} AND {KEY} GROUP BY api_key ORDER BY cost DESC LIMIT 100",
              {"api_key": TEXT, "cost": DOLLARS, "requests": COUNT}),
        GrafanaPanel("Tags", "table", f"SELECT arrayJoin(tags) AS tag, toFloat64(sum(l.cost)) AS cost, count() AS requests FROM request_logs AS l WHERE {IN_TIME_RAW} AND {MODEL} AND {USER} AND {KEY} GROUP BY tag ORDER BY cost DESC LIMIT 100",
              {"tag": TEXT, "cost": DOLLARS, "requests": COUNT}, description="From rows: no rollup has tags. A request with two tags counts under both."),
    ),
    {"model": VALUES_OF_MODEL, "user": VALUES_OF_USER, "key": VALUES_OF_KEY},
)  # fmt: skip


def _percentile(values: str, level: float) -> str:
    """From a sketch within 1 %, and never beyond the least and the largest value."""
    return f"least(greatest(quantileDD(0.01, {level})({values}), min({values})), max({values}))"


_DELAY_MS = "toFloat64(greatest(dateDiff('millisecond', timestamp, created_at), 0))"
_P = DURATION_HISTOGRAM.finished("r")
LATENCY = Board(
    "insights-latency",
    "Latency and errors",
    "How long requests take, and which fail.",
    (
        GrafanaPanel("Duration", "timeseries", f"SELECT time, p[1] AS p50, p[2] AS p95, p[3] AS p99 FROM (SELECT {BY_TIME}, {_P} AS p FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY time) ORDER BY time",
              {"time": TIME, "p50": MS, "p95": MS, "p99": MS}, description="Within 1 % of the true percentiles."),
        GrafanaPanel("Share of requests that failed", "timeseries", f"SELECT {BY_TIME}, sum(r.errors) / sum(r.requests) AS failed FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY time ORDER BY time",
              {"time": TIME, "failed": SHARE}),
        GrafanaPanel("Requests by status", "timeseries", f"SELECT {BY_TIME}, lower(r.status) AS status, sum(r.requests) AS requests FROM rollup_model AS r WHERE {IN_TIME} GROUP BY time, status ORDER BY time",
              {"time": TIME, "status": TEXT, "requests": COUNT}),
        GrafanaPanel("Time to first token", "timeseries", f"SELECT $__timeInterval(timestamp) AS time, {_percentile('time_to_first_token_ms', 0.5)} AS p50, {_percentile('time_to_first_token_ms', 0.95)} AS p95 FROM request_logs WHERE {IN_TIME_RAW} AND {MODEL} AND isNotNull(time_to_first_token_ms) GROUP BY time ORDER BY time",
              {"time": TIME, "p50": MS, "p95": MS}, description="From rows: no rollup has it."),
        GrafanaPanel("Models", "table", f"SELECT model, requests, failed, p[1] AS p50, p[2] AS p95, p[3] AS p99 FROM (SELECT model_name AS model, sum(r.requests) AS requests, sum(r.errors) / sum(r.requests) AS failed, {_P} AS p FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY model) ORDER BY requests DESC LIMIT 100",
              {"model": TEXT, "requests": COUNT, "failed": SHARE, "p50": MS, "p95": MS, "p99": MS}),
        GrafanaPanel("Newest failures", "table", f"SELECT timestamp AS time, request_id, model_name AS model, user_id AS user, status, status_code, error_type, duration_ms FROM request_logs WHERE {IN_TIME_RAW} AND {MODEL} AND is_error ORDER BY timestamp DESC LIMIT 50",
              {"time": TIME, "request_id": TEXT, "model": TEXT, "user": TEXT, "status": TEXT, "status_code": TEXT, "error_type": TEXT, "duration_ms": MS},
              24, 9, "request_id", "From rows; a request id leads to its log in the API."),
    ),
    {"model": VALUES_OF_MODEL},
)  # fmt: skip

_UNCACHED = "sum(r.input_tokens) - sum(r.cached_input_tokens) - sum(r.cache_creation_input_tokens)"
_SAVED = (
    f"toFloat64(sum(r.cached_input_tokens)) * toFloat64(sum(r.input_tokens_cost)) / nullIf({_UNCACHED}, 0)"
    " - toFloat64(sum(r.cached_input_tokens_cost))"
)
CACHE = Board(
    "insights-cache",
    "Cache savings",
    "What prompt caches save.",
    (
        GrafanaPanel("Share of input read from a cache", "timeseries", f"SELECT {BY_TIME}, model_name AS model, sum(r.cached_input_tokens) / nullIf(sum(r.input_tokens), 0) AS cached FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY time, model ORDER BY time",
              {"time": TIME, "model": TEXT, "cached": SHARE}),
        GrafanaPanel("Cost of input", "timeseries", f"SELECT {BY_TIME}, toFloat64(sum(r.input_tokens_cost)) AS uncached, toFloat64(sum(r.cached_input_tokens_cost)) AS cached, toFloat64(sum(r.cache_creation_input_tokens_cost)) AS cache_creation FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY time ORDER BY time",
              {"time": TIME, "uncached": DOLLARS, "cached": DOLLARS, "cache_creation": DOLLARS}),
        GrafanaPanel("Savings by model", "table", f"SELECT model_name AS model, sum(r.cached_input_tokens) AS cached_tokens, sum(r.cached_input_tokens) / nullIf(sum(r.input_tokens), 0) AS cached_share, toFloat64(sum(r.cached_input_tokens_cost)) AS cached_cost, toFloat64(sum(r.cache_creation_input_tokens_cost)) AS creation_cost, {_SAVED} AS saved_estimate FROM rollup_model AS r WHERE {IN_TIME} AND {MODEL} GROUP BY model ORDER BY cached_tokens DESC LIMIT 100",
              {"model": TEXT, "cached_tokens": COUNT, "cached_share": SHARE, "cached_cost": DOLLARS, "creation_cost": DOLLARS, "saved_estimate": DOLLARS},
              24, 9, description="An estimate: cached tokens at the average price of the model's uncached input in the same time, less what they cost. Writing to caches is not taken off."),
    ),
    {"model": VALUES_OF_MODEL},
)  # fmt: skip

INGEST = Board(
    "insights-ingest",
    "Ingest health",
    "Whether everything that the gateway sends arrives, in time.",
    (
        GrafanaPanel("Requests", "timeseries", f"SELECT {BY_TIME}, sum(r.requests) AS requests FROM rollup_model AS r WHERE {IN_TIME} GROUP BY time ORDER BY time",
              {"time": TIME, "requests": COUNT}),
        GrafanaPanel("From request to row", "timeseries", f"SELECT $__timeInterval(created_at) AS time, {_percentile(_DELAY_MS, 0.5)} / 1000 AS p50, {_percentile(_DELAY_MS, 0.99)} / 1000 AS p99 FROM request_logs WHERE {IN_TIME_RAW} GROUP BY time ORDER BY time",
              {"time": TIME, "p50": SECONDS, "p99": SECONDS}, description="From rows: no rollup has the time of writing. Requests that are replayed late show here."),
        GrafanaPanel("Dead letters by reason", "timeseries", "SELECT $__timeInterval(created_at) AS time, reason, count() AS letters FROM dead_letters WHERE $__timeFilter_ms(created_at) GROUP BY time, reason ORDER BY time",
              {"time": TIME, "reason": TEXT, "letters": COUNT}),
        GrafanaPanel("Dead letters", "table", "SELECT reason, field, count() AS letters, min(created_at) AS first, max(created_at) AS last FROM dead_letters WHERE $__timeFilter_ms(created_at) GROUP BY reason, field ORDER BY letters DESC LIMIT 100",
              {"reason": TEXT, "field": TEXT, "letters": COUNT, "first": TIME, "last": TIME}),
        GrafanaPanel("Requests without a cost", "timeseries", f"SELECT {BY_TIME}, model_name AS model, sum(r.unpriced) AS no_price, sum(r.missing_usage) AS no_usage FROM rollup_model AS r WHERE {IN_TIME} GROUP BY time, model HAVING no_price + no_usage > 0 ORDER BY time",
              {"time": TIME, "model": TEXT, "no_price": COUNT, "no_usage": COUNT}, description="Prices are the operator's work, usage the gateway's."),
        GrafanaPanel("Partitions", "table", f"SELECT source_topic AS topic, source_partition AS partition, count() AS rows, max(source_offset) AS last_offset, max(created_at) AS last_written FROM request_logs WHERE {IN_TIME_RAW} GROUP BY topic, partition ORDER BY topic, partition LIMIT 500",
              {"topic": TEXT, "partition": TEXT, "rows": COUNT, "last_offset": COUNT, "last_written": TIME}, description="From rows: no rollup has partitions."),
    ),
)  # fmt: skip

BUDGETS = Board(
    "insights-budgets",
    "Budgets and alerts",
    "What went past its limit, and when.",
    (
        GrafanaPanel("Alerts", "timeseries", "SELECT $__timeInterval(created_at) AS time, kind, count() AS alerts FROM alerts WHERE $__timeFilter_ms(created_at) GROUP BY time, kind ORDER BY time",
              {"time": TIME, "kind": TEXT, "alerts": COUNT}, 24, 7),
        GrafanaPanel("Budgets that passed a threshold", "table", "SELECT budget_id AS budget, scope_kind, scope_value AS scope, max(threshold_percent) / 100 AS threshold, toFloat64(argMax(a.value, a.created_at)) AS spent, toFloat64(argMax(a.limit, a.created_at)) AS limit, max(a.period_end) AS period_end FROM alerts AS a WHERE $__timeFilter_ms(created_at) AND budget_id != '' GROUP BY budget, scope_kind, scope, period_start ORDER BY period_end DESC LIMIT 100",
              {"budget": TEXT, "scope_kind": TEXT, "scope": TEXT, "threshold": SHARE, "spent": COUNT, "limit": COUNT, "period_end": TIME}, 24, 8,
              description="Spent and limit are in the budget's unit: dollars, tokens or requests, as of the last alert."),
        GrafanaPanel("Newest alerts", "table", "SELECT created_at AS time, kind, scope_kind, scope_value AS scope, message FROM alerts WHERE $__timeFilter_ms(created_at) ORDER BY created_at DESC LIMIT 100",
              {"time": TIME, "kind": TEXT, "scope_kind": TEXT, "scope": TEXT, "message": TEXT}, 24, 9),
    ),
)  # fmt: skip

BOARDS = (SPEND, LATENCY, CACHE, INGEST, BUDGETS)
