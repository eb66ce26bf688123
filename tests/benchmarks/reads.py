"""Part 2: how long the read API takes over millions of rows, and what the same questions cost without rollups.

Rows come from ClickHouse itself, 40 days of them at the shape of the demo's traffic; they are kept in a folder to be
used again. Every request is made through the application as a client would make it.
"""

import asyncio
import hashlib
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import numpy as np
from rich.console import Console

from aggregator import planner
from aggregator.catalogue import ROLLUPS
from aggregator.migrations import migrate, read_migrations
from aggregator.warehouse import Warehouse
from api.app import create_app
from api.settings import ApiSettings
from tests.benchmarks.events import SEED

Parameters = Callable[[random.Random], dict[str, Any]]

KEY = "ak-bench"
DAYS = 40
# A chunk is one insert: a day's part of the rows, as if it had arrived in order.
CHUNK_ROWS = 1_000_000
FILL = """
INSERT INTO request_logs (timestamp, request_id, created_at, source_topic, source_partition, source_offset, provider,
    model_name, user_id, api_key_id, api_key_prefix, api_key_hash, api_key_name, status, status_code, error_type,
    is_error, usage_source, input_tokens, output_tokens, cached_input_tokens, duration_ms, upstream_duration_ms,
    time_to_first_token_ms, cost, cost_before_fee, input_tokens_cost, input_tokens_cost_before_fee,
    output_tokens_cost, output_tokens_cost_before_fee, cached_input_tokens_cost, cached_input_tokens_cost_before_fee,
    cache_creation_input_tokens_cost, cache_creation_input_tokens_cost_before_fee, other_cost, other_cost_before_fee,
    price_id, price_version, tags, metadata, session_id)
WITH
    cityHash64(number, {seed:UInt64}) AS h,
    (h % 1000000) / 1000000 AS u, (intDiv(h, 1000000) % 1000000) / 1000000 AS w,
    toUInt32({users:UInt32} * pow(u, 2)) AS user,
    toUInt32({models:UInt32} * pow(w, 2)) AS model,
    cityHash64(h, 1) % 1000 AS luck,
    multiIf(luck < 985, 'success', luck < 997, 'error', 'timeout') AS how,
    toUInt32(200 * exp(4 * ((cityHash64(h, 2) % 10000) / 10000))) AS prompt,
    toUInt32(40 * exp(3 * ((cityHash64(h, 3) % 10000) / 10000))) AS answer,
    toUInt32(300 * exp(4 * ((cityHash64(h, 4) % 100000) / 100000))) AS took,
    toDecimal128('0.000000000001', 12) AS pico,
    toDecimal128(prompt * (150000 + model * 25000), 0) * pico AS input_cost,
    toDecimal128(answer * (600000 + model * 100000), 0) * pico AS output_cost
SELECT
    toDateTime64('2026-10-01 00:00:00', 6, 'UTC')
        + toIntervalMicrosecond(toUInt64(number * ({days:UInt32} * 86400000000. / {rows:UInt64})) + h % 1000) AS at,
    concat('req-', lower(hex(substring(sipHash128(number, {seed:UInt64}), 1, 12)))), at, 'request-events', number % 6,
    intDiv(number, 6), concat('provider-', toString(model % 5)), concat('model-', toString(model)),
    concat('user-', toString(user)), concat('key-', toString(user * 2 + h % 2)),
    concat('ak-', substring(lower(hex(cityHash64(user))), 1, 8)), lower(hex(cityHash64(user, 9))), 'production',
    how, multiIf(how = 'success', 200, how = 'timeout', 504, luck < 990, 429, 500),
    if(how = 'success', '', 'upstream_error'), how != 'success', 'reported', prompt, answer,
    if(h % 3 = 0, intDiv(prompt, 2), 0), took, took - 5, least(took, 400),
    input_cost + output_cost, input_cost + output_cost, input_cost, input_cost, output_cost, output_cost,
    0, 0, 0, 0, 0, 0,
    concat('made-up/model-', toString(model), ' input=', toString(0.15 + model * 0.025), ' cached_input=0',
        ' cache_creation_input=0 output=', toString(0.6 + model * 0.1)), '1', ['prod'], '{"team": "search"}',
    concat('s-', toString(user), '-', toString(intDiv(number, 1000) % 50))
FROM numbers({first:UInt64}, {chunk:UInt64})
"""
USERS, MODELS = 1_000, 60


@dataclass(frozen=True)
class Shape:
    """What a filled database holds."""

    rows: int
    users: int = USERS
    models: int = MODELS
    days: int = DAYS

    @property
    def name(self) -> str:
        """Of the database; rows that another statement or schema has filled are not used again."""
        made_by = FILL + "".join(f"{each.name}{each.checksum}" for each in read_migrations())
        return f"bench_{self.rows}_{self.users}_{self.models}_{hashlib.sha256(made_by.encode()).hexdigest()[:8]}"


def fill(warehouse: Warehouse, shape: Shape, console: Console) -> float:
    """Fill the database unless it is full already; seconds it took."""
    migrate(warehouse)
    started = time.perf_counter()
    bound = {"seed": SEED, "users": shape.users, "models": shape.models, "days": shape.days, "rows": shape.rows}
    first = int(warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"])
    if first == shape.rows:
        return 0.0
    while first < shape.rows:
        chunk = min(CHUNK_ROWS, shape.rows - first)
        warehouse.command(FILL, {**bound, "first": first, "chunk": chunk})
        first += chunk
        console.print(f"  filled {first:,} of {shape.rows:,} rows in {time.perf_counter() - started:,.0f} s")
    for table in ("request_logs", *(rollup.table for rollup in ROLLUPS)):
        warehouse.command(f"OPTIMIZE TABLE {table}")
    return time.perf_counter() - started


@contextmanager
def filled(folder: Path, shape: Shape, console: Console) -> Iterator[Warehouse]:
    warehouse = Warehouse(f"chdb://{folder}", shape.name)
    try:
        fill(warehouse, shape, console)
        yield warehouse
    finally:
        warehouse.close()


def drop_caches(warehouse: Warehouse) -> None:
    """ClickHouse's own caches; the system's page cache stays, since only root may drop it."""
    for cache in (
        "MARK CACHE",
        "UNCOMPRESSED CACHE",
        "PRIMARY INDEX CACHE",
        "QUERY CONDITION CACHE",
        "INDEX MARK CACHE",
    ):
        warehouse.command(f"SYSTEM DROP {cache}")


@dataclass(frozen=True)
class Call:
    """One kind of request. `parameters` gets a random source, so that calls differ as a user's do."""

    name: str
    path: str
    parameters: Parameters
    goal_ms: float | None = None


def _fixed(**parameters: Any) -> Parameters:
    return lambda rng: parameters


def calls(warehouse: Warehouse, shape: Shape) -> list[Call]:
    """Every endpoint, the list with each of its filters (common and rare values), stats by each group-by."""
    ids = [
        row["request_id"] for row in warehouse.query("SELECT request_id FROM request_logs ORDER BY rand() LIMIT 200")
    ]
    logs, stats = "/v1/request-logs", "/v1/request-logs/stats"

    def users(rng: random.Random) -> dict[str, Any]:
        return {"user_id": f"user-{rng.randrange(shape.users)}"}

    filters: dict[str, Parameters] = {
        "no filter": _fixed(),
        "user_id, any": users,
        "user_id, none": lambda rng: {"user_id": f"nobody-{rng.random()}"},
        "api_key_id": lambda rng: {"api_key_id": f"key-{rng.randrange(2 * shape.users)}"},
        "model_name": lambda rng: {"model_name": f"model-{rng.randrange(shape.models)}"},
        "status=timeout": _fixed(status="timeout"),
        "status, none": _fixed(status="unheard-of"),
        "status_code=500": _fixed(status_code=500),
        "status_code, none": _fixed(status_code=418),
        "min_duration_ms, rare": _fixed(min_duration_ms=16_378),
        "max_duration_ms": _fixed(max_duration_ms=400),
        "a day": lambda rng: _range(rng, shape, 1),
        "an hour, user": lambda rng: {**_range(rng, shape, 1 / 24), **users(rng)},
    }
    found = [Call(f"list, {name}", logs, make, 50.0) for name, make in filters.items()]
    found += [
        Call("by id", logs + "/{id}", lambda rng: {"id": rng.choice(ids)}, 20.0),
        Call("by id, none", logs + "/{id}", lambda rng: {"id": f"req-{rng.random()}"}, 20.0),
    ]
    for group in ("model", "user", "api_key", "status", "hour", "day"):
        found += [
            Call(f"stats by {group}", stats, _fixed(group_by=group, metric="cost"), 30.0),
            Call(f"stats by {group}, a ragged week", stats, _ragged_week(shape, group), 30.0),
        ]
    found.append(Call("stats by model of a user", stats, lambda rng: {"group_by": "model", **users(rng)}, 30.0))
    return found


def _ragged_week(shape: Shape, group: str) -> Parameters:
    return lambda rng: {**_range(rng, shape, 7.3), "group_by": group}


def _range(rng: random.Random, shape: Shape, days: float) -> dict[str, str]:
    start = 1_790_812_800 + rng.random() * (shape.days - days) * 86_400
    return {
        "start_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "end_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start + days * 86_400)),
    }


class Api:
    """The application over a warehouse, asked in this process."""

    def __init__(self, warehouse: Warehouse) -> None:
        app = create_app(
            ApiSettings.model_validate({"api_keys": KEY, "request_limit": "", "search_limit": ""}), warehouse
        )
        transport = httpx2.ASGITransport(app=app)
        headers = {"Authorization": f"Bearer {KEY}"}
        self._client = httpx2.AsyncClient(transport=transport, base_url="http://bench", headers=headers, timeout=120)

    async def ask(self, path: str, parameters: dict[str, Any]) -> tuple[float, Any]:
        """(milliseconds, JSON). Raises RuntimeError for an answer that is no success and no 404."""
        named = dict(parameters)
        url = path.format(id=named.pop("id", ""))
        started = time.perf_counter()
        response = await self._client.get(url, params=named)
        spent_ms = (time.perf_counter() - started) * 1000
        if response.status_code not in (200, 404):
            raise RuntimeError(f"{url} {named}: {response.status_code} {response.text[:500]}")
        return spent_ms, response.json()

    async def rate(self, call: Call, count: int, concurrency: int) -> list[float]:
        """Milliseconds of `count` requests, `concurrency` at a time."""
        rng = random.Random(f"{SEED} {call.name}")
        todo = [call.parameters(rng) for _ in range(count)]
        times: list[float] = []

        async def work() -> None:
            while todo:
                times.append((await self.ask(call.path, todo.pop()))[0])

        await asyncio.gather(*(work() for _ in range(concurrency)))
        return times

    async def page(self, number: int, page_size: int = 50) -> list[float]:
        """Milliseconds of pages around `number`, reached by walking there."""
        token, times = "", []
        for current in range(1, number + 5):
            spent_ms, answer = await self.ask("/v1/request-logs", {"page_size": page_size, "page_token": token})
            token = answer["next_page_token"]
            if current >= number - 5:
                times.append(spent_ms)
            if not token:
                break
        return times


def percentiles(times: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2), "p99_ms": round(float(p99), 2)}


def measure(
    warehouse: Warehouse, shape: Shape, console: Console, count: int, concurrencies: Sequence[int]
) -> dict[str, Any]:
    """Figures by call: cold, warm at each concurrency, what was read, and warm without rollups for statistics."""
    api = Api(warehouse)
    results: dict[str, Any] = {}

    async def run() -> None:
        for call in calls(warehouse, shape):
            drop_caches(warehouse)
            figures: dict[str, Any] = {"goal_ms": call.goal_ms, "cold_ms": (await api.rate(call, 1, 1))[0]}
            await api.rate(call, 3, 1)
            for concurrency in concurrencies:
                figures[f"at {concurrency}"] = percentiles(await api.rate(call, max(count, concurrency), concurrency))
            if call.name.startswith("stats") and "week" not in call.name:
                with mock.patch.object(planner, "ROLLUPS", ()):
                    figures["raw_ms"] = statistics.median(await api.rate(call, 3, 1))
            results[call.name] = figures
            first = figures[f"at {concurrencies[0]}"]
            verdict = "" if not call.goal_ms else "ok" if first["p95_ms"] <= call.goal_ms else "MISSED"
            console.print(f"  {call.name:36} p50 {first['p50_ms']:8.1f}  p95 {first['p95_ms']:8.1f} ms  {verdict}")
        results["page 1"] = {"at 1": percentiles(await api.page(6))}
        results["page 1,000"] = {"at 1": percentiles(await api.page(1_000))}
        for name in ("page 1", "page 1,000"):
            console.print(f"  {name:36} p50 {results[name]['at 1']['p50_ms']:8.1f} ms")

    asyncio.run(run())
    return results
