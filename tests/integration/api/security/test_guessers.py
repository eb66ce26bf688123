"""Who guesses keys is told by their address, over a real socket: headers change nothing, a trusted proxy does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from cli.serving import listen, make_server
from tests.support.api import KEY, settings

META = "/v1/analytics/meta"
HOST = "127.0.0.1"


@asynccontextmanager
async def served(warehouse: Warehouse, trusted_proxies: str) -> AsyncIterator[httpx2.AsyncClient]:
    chosen = settings(wrong_key_limit="3/hour", trusted_proxies=trusted_proxies)
    server = make_server(create_app(chosen, warehouse), chosen)
    sock = listen(HOST, 0)
    serving = asyncio.create_task(server.serve([sock]))
    try:
        async with httpx2.AsyncClient(base_url=f"http://{HOST}:{sock.getsockname()[1]}", trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


async def status(client: httpx2.AsyncClient, key: str, forwarded: str) -> int:
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": forwarded, "X-Real-IP": forwarded}
    return int((await client.get(META, headers=headers)).status_code)


async def test_a_guesser_does_not_get_away_by_naming_other_addresses(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Uvicorn's own variable must not open it either.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with served(warehouse, "") as client:
        guesses = [await status(client, f"ak-{number}", f"10.0.0.{number}") for number in range(5)]
        assert guesses == [401, 401, 401, 429, 429]
        assert await status(client, "ak-99", "10.0.0.99") == 429
        assert await status(client, KEY, "10.0.0.99") == 200


async def test_behind_a_proxy_each_client_is_counted_by_itself(warehouse: Warehouse) -> None:
    """The last address is what the proxy has seen; what stands before it is what the client says."""
    async with served(warehouse, HOST) as client:
        said = [f"192.0.2.{number}, 203.0.113.7" for number in range(5)]
        assert [await status(client, "ak-wrong", forwarded) for forwarded in said] == [401, 401, 401, 429, 429]
        assert await status(client, "ak-wrong", "203.0.113.8") == 401
        assert await status(client, "ak-other-wrong", "203.0.113.7") == 429
        assert await status(client, KEY, "203.0.113.7") == 200
