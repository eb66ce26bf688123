"""The API over real connections, in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.events.publisher import EventPublisher
from cli.serving import listen, make_server
from tests.support.api import settings

HOST = "127.0.0.1"


@asynccontextmanager
async def served(
    warehouse: Warehouse, event_publisher: EventPublisher | None = None, **changes: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key of the API with `settings(**changes)`."""
    chosen = settings(**changes)
    server = make_server(create_app(chosen, warehouse, event_publisher), chosen)
    sock = listen(HOST, 0)
    serving = asyncio.create_task(server.serve([sock]))
    url = f"http://{HOST}:{sock.getsockname()[1]}"
    try:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
