"""How the long-running commands listen, serve metrics and stop."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError
from api.settings import ApiSettings
from cli.adapters.clickhouse import missing_migrations
from cli.connections import Connection, ConnectionBounds

API_STOP_SECONDS = 3
# Of every server: it logs nothing, says nothing of itself, and ends by itself when it is told to.
SERVER_OPTIONS: dict[str, Any] = {
    "log_config": None,
    "access_log": False,
    "lifespan": "off",
    "server_header": False,
    "timeout_graceful_shutdown": API_STOP_SECONDS,
}


class ServiceError(InsightsError):
    """A service cannot run as it is configured; the message says why and what to do."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: FastAPI, settings: ApiSettings) -> Server:
    """The server of the API, with the bounds of its settings on connections."""
    bounds = ConnectionBounds(settings.max_connections, settings.head_timeout_seconds)
    trusted_proxies = settings.trusted_proxies
    return Server(
        uvicorn.Config(
            app,
            http=cast(type[asyncio.Protocol], partial(Connection, bounds=bounds)),
            # One more than are kept: what is beyond is answered with 503.
            limit_concurrency=settings.max_connections + 1,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies or None,
            **SERVER_OPTIONS,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ServiceError when the port is taken or the host is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServiceError(
                f"port {port} on {host} is taken by another program, so the API cannot use it:"
                " stop that program or choose another port with --port or INSIGHTS_PORT"
            ) from error
        raise ServiceError(f"the API cannot listen on port {port} of {host}: {error.strerror or error}") from error


def base_url(host: str, port: int) -> str:
    """The address under which a server that listens on `host` is reached from this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def stop_on_signals() -> asyncio.Event:
    """An event of the running loop that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def serve_metrics(port: int, setting: str = "INSIGHTS_METRICS_PORT", host: str = "0.0.0.0") -> None:  # noqa: S104
    """Serve Prometheus metrics on `host`, by default every address of this machine; port 0 for none.

    Raises ServiceError when the port is taken.
    """
    if port:
        try:
            start_http_server(port, host)
        except OSError as error:
            raise ServiceError(
                f"metrics cannot be served on port {port}: {error.strerror}; choose another with {setting}"
            ) from error


def check_migrated(warehouse: Warehouse) -> None:
    """Raises ServiceError when the database lacks a migration."""
    missing = missing_migrations(warehouse)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise ServiceError(f"the database lacks the migrations {names}: run insights migrate first")
