"""Readers who ask more than ClickHouse can answer: what others notice, and what is left when they are gone."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest

from aggregator.clickhouse.client import Warehouse, WarehouseUnavailableError
from aggregator.clickhouse.migrate import migrate
from aggregator.tables.api_keys import create_key
from api.load.call import CallOverError, ReadCall
from api.load.query_threads import QueryThreads
from api.security.permissions import Caller, Scope
from api.security.reader import Reader
from tests.integration.api.security.test_limits_of_queries import veiled
from tests.support.api import KEY, reader_for
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.rows import insert_rows, random_rows
from tests.support.serving import served

HEAVY, OTHER = ({"Authorization": f"Bearer {key}"} for key in (KEY, "ak-other"))
# Alerts are in the one table that is not veiled, so they are a light question.
LIVE, ALERTS, LOGS = "/v1/usage/live", "/v1/alerts", "/v1/request-logs"
OVERVIEW = "/api/public/v2/requests/analytics"
EVENT = b'{"request_id": "r-1"}'
RUNNING = """
SELECT count() AS n FROM system.processes
WHERE Settings['log_comment'] != '' AND NOT startsWith(query, 'KILL') AND current_database = currentDatabase()
"""
# A machine whose cores are both busy takes its time.
SOON_SECONDS = 20.0


def fill(warehouse: Warehouse) -> None:
    migrate(warehouse)
    insert_rows(warehouse, random_rows(seed=5, count=50))
    # Hours of work, of which a query would stop by itself only at its limit.
    veiled(warehouse, "(SELECT count() FROM numbers(300000000000) WHERE sipHash64(number) = 1) >= 0")


@pytest.fixture(scope="module", params=["in this process", "over HTTP"])
def endless(
    request: pytest.FixtureRequest, engine_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    """Whatever is read of requests takes for ever."""
    if request.param == "in this process":
        warehouse = Warehouse(engine_url, database="endless")
        fill(warehouse)
        yield warehouse
        warehouse.command("DROP DATABASE endless")
    else:
        with ClickHouseServer(tmp_path_factory.mktemp("clickhouse") / "data") as server:
            warehouse = Warehouse(server.address, database="endless")
            fill(warehouse)
            yield warehouse
    warehouse.close()


class Accepts:
    """Takes every event."""

    async def publish(self, body: bytes, is_ndjson: bool) -> int:
        return 1

    def schema(self) -> dict[str, Any]:
        return {}


async def until(condition: Callable[[], Awaitable[object]]) -> float:
    """How many seconds it took."""
    started = time.monotonic()
    while not await condition():
        assert time.monotonic() - started < SOON_SECONDS, "it did not come true in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - started


async def running(warehouse: Warehouse) -> int:
    return int((await asyncio.to_thread(warehouse.query, RUNNING))[0]["n"])


async def is_running(warehouse: Warehouse) -> bool:
    return await running(warehouse) > 0


async def is_idle(warehouse: Warehouse) -> bool:
    return await running(warehouse) == 0


async def hang_up(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def ask(client: httpx2.AsyncClient, count: int, path: str = LIVE) -> list["asyncio.Task[httpx2.Response]"]:
    return [asyncio.create_task(client.get(path, headers=HEAVY)) for _ in range(count)]


async def test_clients_that_hang_up_leave_no_query_behind(endless: Warehouse) -> None:
    async with served(endless) as client:
        asking = ask(client, 8)
        asking += [asyncio.create_task(client.post(OVERVIEW, headers=HEAVY, json={})) for _ in range(4)]
        await until(lambda: is_running(endless))
        await hang_up(*asking)
        await until(lambda: is_idle(endless))
        # Their places are free as well.
        assert (await client.get(ALERTS, headers=HEAVY)).status_code == 200


async def test_a_body_that_nobody_asked_for_and_nobody_can_read_is_named(endless: Warehouse) -> None:
    """It is read while the query runs, to notice when the client hangs up."""
    async with served(endless) as client:
        encoded = await client.request("GET", LIVE, headers={**HEAVY, "Content-Encoding": "br"}, content=b"x")
        large = await client.request("GET", LIVE, headers=HEAVY, content=bytes(2 * 1024 * 1024))
        assert [encoded.status_code, large.status_code] == [415, 413]
        await until(lambda: is_idle(endless))


async def test_a_request_that_runs_into_its_time_limit_leaves_no_query_behind(endless: Warehouse) -> None:
    async with served(endless, request_timeout_seconds=2) as client:
        started = time.monotonic()
        answers = await asyncio.gather(*ask(client, 6), client.post(OVERVIEW, headers=HEAVY, json={}))
        assert [answer.status_code for answer in answers] == [504] * 7
        # Those that never had their turn do not wait for longer than the others.
        assert time.monotonic() - started < SOON_SECONDS
        await until(lambda: is_idle(endless))


async def test_a_query_that_fails_ends_the_others_of_its_request(endless: Warehouse) -> None:
    async with served(endless) as client:
        reader: Reader = reader_for(endless, Caller("x", frozenset({Scope.READ})))
        with pytest.raises(Exception, match="nowhere"):
            await asyncio.to_thread(
                reader.query_all, [("SELECT * FROM nowhere", {}), ("SELECT count() FROM request_logs", {})]
            )
        await until(lambda: is_running(endless))
        assert reader.threads.end(reader.call, "x") == 1
        await until(lambda: is_idle(endless))
        assert (await client.get("/healthz")).status_code == 200


async def test_others_are_answered_while_a_key_asks_too_much(endless: Warehouse) -> None:
    key = await asyncio.to_thread(create_key, endless, f"of {time.time()}", ["read"], "test")
    stored = {"Authorization": f"Bearer {key}"}
    async with served(endless, Accepts(), max_queries=4, max_requests_of_key=45) as client:
        asking = ask(client, 45)
        await until(lambda: is_running(endless))
        for _ in range(3):
            assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz", "/version")] == [200] * 3
            assert (await client.get(ALERTS, headers=OTHER)).status_code == 200
            assert (await client.get(ALERTS, headers=stored)).status_code == 200
            assert (await client.get(ALERTS, headers={"X-API-KEY": "ak-wrong"})).status_code == 401
            assert (await client.get(f"{ALERTS}?limit=1&limit=2", headers=OTHER)).status_code == 400
            assert (await client.get("/v1/events/schema", headers=OTHER)).status_code == 200
            headers = {**OTHER, "Content-Type": "application/json"}
            assert (await client.post("/v1/events", content=EVENT, headers=headers)).status_code == 202
        assert not [task for task in asking if task.done()], "the heavy questions still run"
        await hang_up(*asking)
        await until(lambda: is_idle(endless))


async def test_one_request_too_many_is_refused_and_says_when_to_come_back(endless: Warehouse) -> None:
    async with served(endless, max_requests=6, max_requests_of_key=4) as client:
        asking = ask(client, 4)
        await until(lambda: is_running(endless))
        of_key = [await client.get(LOGS, headers=HEAVY), await client.post(OVERVIEW, headers=HEAVY, json={})]
        asking += [asyncio.create_task(client.get(LIVE, headers=OTHER)) for _ in range(2)]
        await asyncio.sleep(0.5)
        of_all = [await client.get(LOGS, headers=OTHER), await client.post(OVERVIEW, headers=OTHER, json={})]
        assert [answer.status_code for answer in (*of_key, *of_all)] == [429, 429, 503, 503]
        assert {answer.headers["Retry-After"] for answer in (*of_key, *of_all)} == {"1"}
        assert [answer.json()["code"] for answer in (of_key[0], of_all[0])] == ["rate_limited", "unavailable"]
        assert [answer.json()["success"] for answer in (of_key[1], of_all[1])] == [False, False]
        # What asks ClickHouse nothing is no request under way.
        assert (await client.get("/v1/analytics/meta", headers=HEAVY)).status_code == 200
        await hang_up(*asking)
        await until(lambda: is_idle(endless))
        assert (await client.get(ALERTS, headers=HEAVY)).status_code == 200


async def test_a_stream_is_no_request_under_way_and_waits_for_its_turn_alone(endless: Warehouse) -> None:
    async with served(endless, max_requests=2, max_requests_of_key=2) as client:
        streams = [
            asyncio.create_task(client.get(f"{LIVE}/stream", headers=HEAVY | {"Accept": "text/event-stream"}))
            for _ in range(10)
        ]
        await until(lambda: is_running(endless))
        assert (await client.get(ALERTS, headers=HEAVY)).status_code == 200
        await hang_up(*streams)
        await until(lambda: is_idle(endless))


def test_every_query_of_a_request_has_what_is_left_of_its_time(warehouse: Warehouse) -> None:
    reader = Reader(
        warehouse,
        {"max_execution_time": 7},
        Caller("x", frozenset({Scope.READ})),
        QueryThreads(2, warehouse.kill),
        ReadCall(9.0),
    )
    limit = "SELECT toFloat64(getSetting('max_execution_time')) AS seconds, getSetting('log_comment') AS comment"
    [first] = reader.query(limit, {})
    time.sleep(2.5)
    [second] = reader.query(limit, {}, {"max_execution_time": 1000, "log_comment": "mine"})
    assert first == {"seconds": 7.0, "comment": reader.call.id}, "the setting, while it is the smaller one"
    assert 0 < second["seconds"] <= 6.5
    assert second["comment"] == reader.call.id
    time.sleep(reader.call.remaining_seconds())
    with pytest.raises(CallOverError):
        reader.query(limit, {})


def test_a_server_that_stops_to_answer_keeps_a_thread_no_longer_than_anybody_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        warehouse = Warehouse(f"http://127.0.0.1:{silent.getsockname()[1]}/insights", timeout_seconds=1)
        started = time.monotonic()
        with pytest.raises(WarehouseUnavailableError):
            warehouse.query("SELECT 1")
        assert time.monotonic() - started < SOON_SECONDS
