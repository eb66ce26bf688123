"""The long-running parts alone, as a container runs them: `insights api`, `insights ingest`; and how all of them
listen and stop."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from aggregator.budgets.settings import AggregateSettings
from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError
from api.app import create_app
from cli.adapters.budget_store import KafkaBudgets
from cli.adapters.clickhouse import missing_migrations, open_warehouse
from cli.adapters.event_publisher import KafkaGate
from cli.settings import ApiCommandSettings
from ingest.consumer.worker import OBJECTS_BETWEEN_COLLECTIONS, Worker
from ingest.settings import IngestSettings

API_STOP_SECONDS = 3


class ServiceError(InsightsError):
    """A service cannot run as it was told to; the message says why and what to do."""


class Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: FastAPI, trusted_proxies: str = "") -> Server:
    """`trusted_proxies` are addresses or networks, comma-separated, whose word on who asks is taken."""
    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=API_STOP_SECONDS,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=trusted_proxies or None,
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
    """An event that SIGINT and SIGTERM set, for the running loop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def serve_metrics(port: int, setting: str = "INSIGHTS_METRICS_PORT") -> None:
    """Prometheus metrics on every address of this machine; 0 for none. Raises ServiceError when the port is taken."""
    if port:
        try:
            start_http_server(port)
        except OSError as error:
            raise ServiceError(
                f"metrics cannot be served on port {port}: {error.strerror}; choose another with {setting}"
            ) from error


async def run_api(settings: ApiCommandSettings) -> None:
    """Serve the API until SIGINT or SIGTERM; events too, where Kafka's address is given."""
    stop = stop_on_signals()
    warehouse = open_warehouse(settings.clickhouse_url.get_secret_value())
    servers = settings.kafka_bootstrap_servers
    options = settings.client_options()
    gate = KafkaGate(servers, settings.kafka_topic, **options) if servers else None
    budgets = KafkaBudgets(servers, **options) if servers else None
    server = make_server(create_app(settings, warehouse, gate, budgets), settings.trusted_proxies)
    serve_metrics(settings.api_metrics_port, "INSIGHTS_API_METRICS_PORT")
    serving = asyncio.create_task(server.serve([listen(settings.host, settings.port)]))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    stopped.cancel()
    if gate is not None:
        await gate.close()
    if budgets is not None:
        await budgets.close()
    warehouse.close()


def _check_migrated(warehouse: Warehouse) -> None:
    missing = missing_migrations(warehouse)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise ServiceError(f"the database lacks the migrations {names}: run insights migrate first")


async def run_ingest(settings: IngestSettings) -> None:
    """Ingest until SIGINT or SIGTERM. Raises ServiceError when the database has not been migrated."""
    stop = stop_on_signals()
    warehouse = open_warehouse(settings.clickhouse_url, settings.clickhouse_shard_urls)
    _check_migrated(warehouse)
    serve_metrics(settings.metrics_port)
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    await Worker(settings, warehouse).run(stop)
    warehouse.close()


async def run_aggregate(settings: AggregateSettings) -> None:
    """Count usage and give alerts until SIGINT or SIGTERM. Raises ServiceError where the database lacks tables."""
    from aggregator.budgets.app import Aggregator

    stop = stop_on_signals()
    warehouse = open_warehouse(settings.clickhouse_url.get_secret_value())
    _check_migrated(warehouse)
    serve_metrics(settings.metrics_port)
    aggregator = Aggregator(settings, warehouse)
    await aggregator.start()
    failed, stopped = asyncio.create_task(aggregator.wait()), asyncio.create_task(stop.wait())
    await asyncio.wait([failed, stopped], return_when=asyncio.FIRST_COMPLETED)
    await aggregator.stop()
    stopped.cancel()
    warehouse.close()
    await failed
