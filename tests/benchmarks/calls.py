"""What the reads part asks: every route of both APIs that reads, and a named list of those that are left out."""

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.rows import Shape

Make = Callable[[random.Random], dict[str, Any]]

LOGS, STATS, V2 = "/v1/request-logs", "/v1/request-logs/stats", "/api/public/v2/requests"
LEFT_OUT = {
    "GET /healthz": "asks nothing of ClickHouse",
    "GET /version": "asks nothing of ClickHouse",
    "GET /v1/events/schema": "asks nothing of ClickHouse",
    "POST /v1/events": "writes",
    "GET /v1/budgets": "reads Kafka, not ClickHouse",
    "GET /v1/usage/live/stream": "has no end; each of its events is one GET /v1/usage/live",
}
START = 1_790_812_800  # of the rows: 2026-10-01
WORD, RARE_WORD = "conrere", "busapa"


@dataclass(frozen=True)
class Call:
    """One kind of request. `make` gets a random source, so that calls differ as a user's do; what it makes is the
    query of a GET and the JSON body of a POST, but for `id`, which is the path's."""

    name: str
    route: str
    make: Make
    goal_ms: float | None = None
    has_rollup: bool = False

    @property
    def method(self) -> str:
        return self.route.split()[0]

    @property
    def path(self) -> str:
        return self.route.split()[1]


@dataclass(frozen=True)
class Ids:
    """Requests that exist."""

    any: Sequence[str]
    with_bodies: Sequence[str]


def calls(shape: Shape, ids: Ids) -> list[Call]:
    """Every endpoint, the list with each of its filters (common and rare values), stats by each group-by."""
    return [*_logs(shape, ids), *_stats(shape), *_search(), *_charts(), *_suggestions(), *_small()]


def _fixed(**parameters: Any) -> Make:
    return lambda rng: parameters


def _user(shape: Shape) -> Make:
    return lambda rng: {"user_id": f"user-{rng.randrange(shape.users)}"}


def _range(shape: Shape, days: float) -> Make:
    def make(rng: random.Random) -> dict[str, str]:
        start = START + rng.random() * (shape.days - days) * 86_400
        return {
            "start_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
            "end_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start + days * 86_400)),
        }

    return make


def _logs(shape: Shape, ids: Ids) -> list[Call]:
    user, hour = _user(shape), _range(shape, 1 / 24)
    filters: dict[str, Make] = {
        "no filter": _fixed(),
        "user_id, any": user,
        "user_id, none": lambda rng: {"user_id": f"nobody-{rng.random()}"},
        "api_key_id": lambda rng: {"api_key_id": f"key-{rng.randrange(2 * shape.users)}"},
        "model_name": lambda rng: {"model_name": f"model-{rng.randrange(shape.models)}"},
        "status=timeout": _fixed(status="timeout"),
        "status, none": _fixed(status="unheard-of"),
        "status_code=500": _fixed(status_code=500),
        "status_code, none": _fixed(status_code=418),
        "min_duration_ms, rare": _fixed(min_duration_ms=16_378),
        "max_duration_ms": _fixed(max_duration_ms=400),
        "a day": _range(shape, 1),
        "an hour, user": lambda rng: {**hour(rng), **user(rng)},
    }
    found = [Call(f"list, {name}", f"GET {LOGS}", make, 50.0) for name, make in filters.items()]
    one = f"GET {LOGS}/{{request_id}}"
    return [
        *found,
        Call("by id, any", one, lambda rng: {"id": rng.choice(ids.any)}, 20.0),
        Call("by id, with bodies", one, lambda rng: {"id": rng.choice(ids.with_bodies)}, 20.0),
        Call("by id, none", one, lambda rng: {"id": f"req-{rng.random()}"}, 20.0),
    ]


def _stats(shape: Shape) -> list[Call]:
    week, user, route = _range(shape, 7.3), _user(shape), f"GET {STATS}"
    found = []
    for group in ("model", "user", "api_key", "status", "hour", "day"):
        asked = {"group_by": group, "metric": "cost"}
        found += [
            Call(f"stats by {group}", route, _fixed(**asked), 30.0, has_rollup=True),
            Call(f"stats by {group}, a ragged week", route, _and(week, **asked), 30.0, has_rollup=True),
        ]
    return [*found, Call("stats by model of a user", route, _and(user, group_by="model"), 30.0, has_rollup=True)]


def _and(make: Make, **more: Any) -> Make:
    return lambda rng: {**make(rng), **more}


def _day(rng: random.Random) -> dict[str, Any]:
    day = time.strftime("%Y-%m-%d", time.gmtime(START + rng.randrange(40) * 86_400))
    return {"field": "request_start_time", "operator": "between", "value": [day, day]}


def _model(rng: random.Random) -> dict[str, Any]:
    return {"field": "engine", "operator": "is", "value": f"model-{rng.randrange(60)}"}


def _filtered(*leaves: Make, **more: Any) -> Make:
    return lambda rng: {"filter_group": {"filters": [leaf(rng) for leaf in leaves]}, **more}


def _search() -> list[Call]:
    route = f"POST {V2}/search"
    found = {
        "newest": _fixed(),
        "newest, page 400": _fixed(page=400, per_page=25),
        "a day of a model": _filtered(_day, _model),
        "dearest": _fixed(sort_by="cost", sort_order="desc"),
    }
    words = {
        "q, common word": _fixed(q=WORD),
        "q, rare word": _fixed(q=RARE_WORD),
        "q, two words": _fixed(q=f"{WORD} gatare"),
        "q, no such word": _fixed(q="xylophone"),
        "q, common word of a day": _filtered(_day, q=WORD),
    }
    return [
        *(Call(f"search, {name}", route, make) for name, make in found.items()),
        *(Call(f"search, {name}", route, make, 200.0) for name, make in words.items()),
    ]


def _charts() -> list[Call]:
    overview, custom = f"POST {V2}/analytics", f"POST {V2}/analytics/custom-analytics"

    def chart(**asked: Any) -> dict[str, Any]:
        return {"customCharts": [{"id": "c", "chartType": "bar", "metric": "count", **asked}]}

    cost = {"metric": "sum", "metricField": "cost"}
    return [
        Call("overview", overview, _fixed(), has_rollup=True),
        Call("overview, a day", overview, _filtered(_day), has_rollup=True),
        Call("overview, a model", overview, _filtered(_model), has_rollup=True),
        Call("chart, cost by model", custom, _fixed(**chart(**cost, groupByField="engine")), has_rollup=True),
        Call("chart, requests by user", custom, _fixed(**chart(groupByField="user_id")), has_rollup=True),
        Call("chart, cost by day", custom, _fixed(**chart(**cost, timeSeries=True)), has_rollup=True),
        Call("chart, cost by team of a day", custom, _filtered(_day, **chart(**cost, groupByMetadataKey="team"))),
        Call("chart, cost by team", custom, _fixed(**chart(**cost, groupByMetadataKey="team"))),
    ]


def _suggestions() -> list[Call]:
    route = f"GET {V2}/suggestions"
    group = {"filter_group": json.dumps({"filters": [{"field": "engine", "operator": "is", "value": "model-3"}]})}
    return [
        Call("suggestions, models", route, _fixed(field="engine", prefix="model-1")),
        Call("suggestions, tags", route, _fixed(field="tags")),
        Call("suggestions, metadata values", route, _fixed(field="metadata_values", metadata_key="team")),
        Call("suggestions, tags of a model", route, _fixed(field="tags", **group)),
    ]


def _small() -> list[Call]:
    return [
        Call("live usage", "GET /v1/usage/live", _fixed()),
        Call("alerts", "GET /v1/alerts", _fixed()),
        Call("what analytics know", "GET /v1/analytics/meta", _fixed()),
        Call("readiness", "GET /readyz", _fixed()),
    ]
