"""Serves the engine of this process to the other commands of the same user, for as long as the stack runs."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from aggregator.clickhouse.client import DEFAULT_DATABASE
from aggregator.running_stack import RunningStack, forget
from cli.local_stack.broker import HOST
from cli.local_stack.data_dir import DataDir
from cli.local_stack.engine_http import USER, Engine, EngineHttp, SecretRequired
from cli.serving import SERVER_OPTIONS, Server

SECRET_BYTES = 32


@asynccontextmanager
async def serve_engine(data: DataDir, kafka_bootstrap_servers: str, api_url: str) -> AsyncIterator[None]:
    """Inside the block the data directory says where the engine, under a new secret, the broker and the API are
    reached."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    app = EngineHttp(Engine(data.rows))
    server = Server(uvicorn.Config(SecretRequired(app, secret), **SERVER_OPTIONS))
    with socket.create_server((HOST, 0)) as sock:
        port = sock.getsockname()[1]
        serving = asyncio.create_task(server.serve([sock]))
        url = f"http://{USER}:{secret}@{HOST}:{port}/{DEFAULT_DATABASE}"
        RunningStack(clickhouse_url=url, kafka_bootstrap_servers=kafka_bootstrap_servers, api_url=api_url).write(
            data.path
        )
        try:
            yield
        finally:
            forget(data.path)
            server.should_exit = True
            await serving
            await asyncio.to_thread(app.close)
