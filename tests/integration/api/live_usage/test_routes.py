"""Live usage over HTTP, read once and as a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.tables.api_keys import create_key, revoke_key
from api.app import create_app
from api.live_usage import routes
from api.security import keyring, rate_limits
from cli.serving import listen, make_server
from tests.support.api import KEY, client_of, get, rfc3339, settings
from tests.support.rows import Row, insert_rows, random_rows, why_unpriced


def expected_minute(rows: list[Row], moment: datetime) -> dict[str, Any]:
    mine = [row for row in rows if moment <= row["timestamp"] < moment + timedelta(minutes=1)]
    durations = [row["duration_ms"] for row in mine if row["duration_ms"] is not None]
    return {
        "minute": rfc3339(moment).replace(".000000Z", "Z"),
        "requests": len(mine),
        "errors": sum(row["is_error"] for row in mine),
        "unpriced": sum(why_unpriced(row) == "no_price" for row in mine),
        "missing_usage": sum(why_unpriced(row) == "no_usage" for row in mine),
        "failed_without_usage": sum(why_unpriced(row) == "failed_without_usage" for row in mine),
        "input_tokens": sum(row["input_tokens"] or 0 for row in mine),
        "output_tokens": sum(row["output_tokens"] or 0 for row in mine),
        "cost": sum((row["cost"] or Decimal(0) for row in mine), Decimal(0)),
        "avg_duration_ms": round(sum(durations) / len(durations), 3) if durations else None,
    }


def test_live_usage_is_that_of_the_rows_minute_by_minute(warehouse: Warehouse) -> None:
    now = datetime.now(UTC)
    rows = random_rows(5, 400, start=now - timedelta(minutes=63), span=timedelta(minutes=63))
    insert_rows(warehouse, rows)
    scopes = {"total": "", "user": "alice", "model": "meta/llama: 'big'", "api_key": "key-1", "tag": "b'c"}
    with client_of(warehouse) as client:
        for scope, value in scopes.items():
            answer = get(client, "/v1/usage/live", scope=scope, value=value)
            names = {"user": "user_id", "model": "model_name", "api_key": "api_key_id"}
            mine = [
                row
                for row in rows
                if scope == "total" or value in row["tags"] or row.get(names.get(scope, "")) == value
            ]
            found = [answer["current"], *answer["minutes"]]
            assert len(found) == 61
            for one in found:
                moment = datetime.fromisoformat(one["minute"])
                assert {**one, "cost": Decimal(one["cost"])} == expected_minute(mine, moment)
        for query in ("scope=user", "value=x", "scope=team&value=x", "colour=red"):
            assert client.get(f"/v1/usage/live?{query}").status_code == 400


async def test_the_stream_says_what_has_come_since(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.05)
    now = datetime.now(UTC)
    first, second = (random_rows(n, 20, now - timedelta(seconds=30), timedelta(seconds=30), n * 100) for n in (1, 2))
    insert_rows(warehouse, first)
    counts: list[int] = []
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        asyncio.timeout(120),
        serving(warehouse) as url,
        httpx2.AsyncClient(trust_env=False) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                usage = json.loads(line.removeprefix("data: "))
                counts.append(sum(one["requests"] for one in [usage["current"], *usage["minutes"]]))
            if len(counts) == 1:
                await asyncio.to_thread(insert_rows, warehouse, second)
            if counts[-1:] == [40]:
                break
    assert counts[0] == 20


@asynccontextmanager
async def serving(warehouse: Warehouse) -> AsyncIterator[str]:
    """The address of the stream, served over a real connection."""
    settings_ = settings()
    server = make_server(create_app(settings_, warehouse), settings_)
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve([sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1/usage/live/stream"
    finally:
        server.should_exit = True
        await task


async def test_a_stream_ends_when_its_key_is_revoked(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.05)
    monkeypatch.setattr(keyring, "REFRESH_SECONDS", 0.1)
    key = await asyncio.to_thread(create_key, warehouse, "team", ["read"], "test")
    async with (
        asyncio.timeout(120),
        serving(warehouse) as url,
        httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {key}"}) as client,
        client.stream("GET", url) as answer,
    ):
        events = 0
        async for line in answer.aiter_lines():
            events += line.startswith("data: ")
            if events == 1 and line.startswith("data: "):
                await asyncio.to_thread(revoke_key, warehouse, "team", "test")
        assert events >= 1


async def test_a_key_has_so_many_streams_and_each_that_is_closed_makes_room(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "MAX_STREAMS", 3)
    async with (
        asyncio.timeout(120),
        serving(warehouse) as url,
        httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client,
    ):
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(client.stream("GET", url)) for _ in range(3)]
            assert [answer.status_code for answer in opened] == [200] * 3
            assert (await client.get(url)).status_code == 429
            other = await stack.enter_async_context(
                client.stream("GET", url, headers={"Authorization": "Bearer ak-other"})
            )
            assert other.status_code == 200
        while True:
            async with client.stream("GET", url) as answer:
                if answer.status_code == 200:
                    break
            await asyncio.sleep(0.05)
