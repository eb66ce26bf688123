"""Part 2: how long the read API takes over millions of rows, and what the same questions cost without rollups.

Every request is made through the application as a client would make it, application and engine in this process.
"""

import asyncio
import random
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import httpx2
import numpy as np
from rich.progress import Progress

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import planner
from api.app import create_app
from api.settings import ApiSettings
from tests.benchmarks.calls import LOGS, Call, Ids, calls
from tests.benchmarks.events import SEED
from tests.benchmarks.rows import Shape

KEY = "ak-bench"
OBSERVED = 3
# Of one figure: slow requests are asked fewer times, and not at all where one round of them would take longer.
PATIENCE_SECONDS = 6.0
IDS = """
SELECT request_id FROM {table} WHERE timestamp >= toDateTime64('2026-10-17 12:00:00', 6, 'UTC')
    AND timestamp < toDateTime64('2026-10-17 16:00:00', 6, 'UTC') ORDER BY cityHash64(request_id) LIMIT 200
"""
# Of statements, but for those that only set something; `memory` is the most that one of them took.
READ = """
SELECT count() AS statements, sum(read_rows) AS rows, sum(read_bytes) AS bytes, max(memory_usage) AS memory
FROM system.query_log
WHERE event_date >= yesterday() AND type != 'QueryStart' AND log_comment = {comment:String} AND query_kind = 'Select'
"""


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


def some_ids(warehouse: Warehouse) -> Ids:
    found = (warehouse.query(IDS.format(table=table)) for table in ("request_logs", "request_payloads"))
    return Ids(*([row["request_id"] for row in rows] for rows in found))


class Api:
    """The application over a warehouse, asked in this process."""

    def __init__(self, warehouse: Warehouse) -> None:
        unlimited = dict.fromkeys(("request_limit", "search_limit", "suggestions_limit"), "")
        self.app = create_app(ApiSettings.model_validate({"api_keys": KEY, **unlimited}), warehouse)
        self.app.state.limits["log_queries"] = 0
        self._warehouse = warehouse
        transport = httpx2.ASGITransport(app=self.app)
        headers = {"Authorization": f"Bearer {KEY}"}
        self._client = httpx2.AsyncClient(transport=transport, base_url="http://bench", headers=headers, timeout=120)

    async def ask(self, call: Call, parameters: dict[str, Any]) -> tuple[float, Any]:
        """(milliseconds, JSON). Raises RuntimeError for an answer that is no success and no 404."""
        named = dict(parameters)
        url = call.path.format(request_id=named.pop("id", ""))
        sent: dict[str, Any] = {"json": named} if call.method == "POST" else {"params": named}
        started = time.perf_counter()
        response = await self._client.request(call.method, url, **sent)
        spent_ms = (time.perf_counter() - started) * 1000
        if response.status_code not in (200, 404):
            raise RuntimeError(f"{call.route} {named}: {response.status_code} {response.text[:500]}")
        return spent_ms, response.json()

    async def rate(self, call: Call, count: int, concurrency: int) -> list[float]:
        """Milliseconds of `count` requests, `concurrency` at a time, or of fewer where patience ends."""
        rng = random.Random(f"{SEED} {call.name}")
        todo = [call.make(rng) for _ in range(count)]
        deadline = time.perf_counter() + PATIENCE_SECONDS
        times: list[float] = []

        async def work() -> None:
            while todo and (time.perf_counter() < deadline or not times):
                times.append((await self.ask(call, todo.pop()))[0])

        await asyncio.gather(*(work() for _ in range(concurrency)))
        return times

    async def observe(self, call: Call) -> dict[str, int]:
        """What ClickHouse read for one request, from its log of queries: the mean of some requests."""
        comment, count = uuid.uuid4().hex, OBSERVED
        limits = self.app.state.limits
        with mock.patch.dict(limits, {"log_queries": 1, "log_comment": comment}):
            await self.rate(call, count, 1)
        self._warehouse.command("SYSTEM FLUSH LOGS")
        found = self._warehouse.query(READ, {"comment": comment})[0]
        means = {f"{name}_read": round(found[name] / count) for name in ("rows", "bytes")}
        return {"statements": round(found["statements"] / count), **means, "memory_bytes": int(found["memory"])}

    async def page(self, number: int, page_size: int = 50) -> list[float]:
        """Milliseconds of pages around `number`, reached by walking there."""
        call = Call("page", f"GET {LOGS}", lambda rng: {})
        token, times = "", []
        for current in range(1, number + 5):
            spent_ms, answer = await self.ask(call, {"page_size": page_size, "page_token": token})
            token = answer["next_page_token"]
            if current >= number - 5:
                times.append(spent_ms)
            if not token:
                break
        return times


def percentiles(times: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    found = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
    return {**{name: round(float(ms), 2) for name, ms in found.items()}, "requests": len(times)}


@contextmanager
def timed(stage: str, progress: Progress) -> Iterator[None]:
    """Say how long a stage took."""
    started = time.perf_counter()
    yield
    progress.console.print(f"  {stage}: {time.perf_counter() - started:,.1f} s")


async def _figures(api: Api, call: Call, warehouse: Warehouse, count: int, levels: Sequence[int]) -> dict[str, Any]:
    """Of one call: cold, what was read, warm at each concurrency, and warm without rollups where it has one."""
    drop_caches(warehouse)
    found: dict[str, Any] = {"goal_ms": call.goal_ms, "cold_ms": (await api.rate(call, 1, 1))[0]}
    found |= await api.observe(call)
    expected_ms = 0.0
    for concurrency in levels:
        if expected_ms * concurrency > PATIENCE_SECONDS * 1000:
            continue
        found[f"at {concurrency}"] = percentiles(await api.rate(call, max(count, concurrency), concurrency))
        expected_ms = expected_ms or found[f"at {concurrency}"]["p50_ms"]
    if call.has_rollup:
        with mock.patch.object(planner, "ROLLUPS", ()):
            found["raw_ms"] = statistics.median(await api.rate(call, 3, 1))
    return found


def measure(
    warehouse: Warehouse, shape: Shape, progress: Progress, count: int, levels: Sequence[int], kinds: Sequence[str]
) -> dict[str, Any]:
    """Figures by call, of those whose name starts with one of `kinds`."""
    api, results = Api(warehouse), {}
    chosen = [call for call in calls(shape, some_ids(warehouse)) if call.name.startswith(tuple(kinds))]

    async def run() -> None:
        for call in progress.track(chosen, description="requests"):
            results[call.name] = found = await _figures(api, call, warehouse, count, levels)
            first = found[f"at {levels[0]}"]
            verdict = "" if not call.goal_ms else "ok" if first["p95_ms"] <= call.goal_ms else "MISSED"
            progress.console.print(
                f"  {call.name:32} p50 {first['p50_ms']:8.1f}  p95 {first['p95_ms']:8.1f} ms"
                f"  {found['rows_read']:12,} rows {found['memory_bytes'] / 2**20:7.1f} MiB  {verdict}"
            )

    async def turn_pages() -> None:
        for number in (1, 1_000):
            results[f"page {number:,}"] = {"at 1": percentiles(await api.page(number))}
            progress.console.print(f"  page {number:,}: {results[f'page {number:,}']['at 1']}")

    with timed("requests", progress):
        asyncio.run(run())
    if "page".startswith(tuple(kinds)):
        with timed("pages", progress):
            asyncio.run(turn_pages())
    return results
