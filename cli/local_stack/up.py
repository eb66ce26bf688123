"""`insights up`: worker, aggregator, warehouse and API in this process, and the broker in a child process."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from pydantic import SecretStr

from aggregator.budgets.app import Aggregator
from aggregator.budgets.settings import AggregateSettings
from aggregator.clickhouse.address_space import check_address_space
from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from api.app import create_app
from api.settings import ApiSettings
from cli.adapters.budget_store import KafkaBudgets
from cli.adapters.price_list import BookPrices
from cli.local_stack.broker import BrokerError, EmbeddedBroker
from cli.local_stack.data_dir import DataDir, DataDirError
from cli.local_stack.drain import drain
from cli.local_stack.maintenance import serve_engine
from cli.local_stack.process import READY
from cli.local_stack.repair import repair_rollups
from cli.serving import Server, base_url, listen, make_server, serve_metrics, stop_on_signals
from cli.settings import AckedBy, UpSettings
from ingest.consumer.worker import Worker
from ingest.producer.event_publisher import KafkaEventPublisher
from ingest.receipts import Receipts
from ingest.settings import IngestSettings
from ingest.topics.create import create_topics

log = structlog.get_logger(__name__)

PARTITIONS = 2
MAX_QUERIES = 4
SESSION_TIMEOUT_MS = 1_500
FLUSH_SECONDS = 0.25
POLL_SECONDS = 0.05
# How long a stop waits for the answers of requests whose events are not stored yet.
ANSWER_SECONDS = 15.0
WORKER_STOP_SECONDS = 15.0
AGGREGATOR_STOP_SECONDS = 3.0
STOPPING = "this service is stopping"
# The embedded broker knows neither encryption nor passwords, whatever the environment says of another Kafka.
PLAINTEXT: dict[str, Any] = {"kafka_security_protocol": "PLAINTEXT", "kafka_username": "", "kafka_ca_file": None}


def api_settings(data: DataDir, host: str, port: int) -> ApiSettings:
    """Keys from INSIGHTS_API_KEYS where there are any, else the one that the data directory keeps."""
    given: dict[str, Any] = {"clickhouse_url": data.clickhouse_url, "host": host, "port": port}
    if not os.environ.get("INSIGHTS_API_KEYS", "").strip(" ,"):
        given["api_keys"] = data.api_key()
    found = ApiSettings(**given)
    if "max_queries" in found.model_fields_set:
        return found
    # ClickHouse has the cores of this machine only, and the API shares them with it.
    return found.model_copy(update={"max_queries": MAX_QUERIES})


def ingest_settings(data: DataDir, broker: EmbeddedBroker) -> IngestSettings:
    """The settings of the worker: those of `insights ingest`, with defaults for a stack on one machine."""
    found = IngestSettings(
        kafka_bootstrap_servers=broker.address,
        **PLAINTEXT,
        clickhouse_url=SecretStr(data.clickhouse_url),
        clickhouse_shard_urls=SecretStr(""),
    )
    own: dict[str, Any] = {
        # The embedded broker keeps the only member of the group waiting for most of its session timeout.
        "kafka_session_timeout_ms": SESSION_TIMEOUT_MS,
        # Requests wait for it.
        "flush_seconds": FLUSH_SECONDS,
        # Two stacks may run on one machine.
        "metrics_port": 0,
    }
    return found.model_copy(update={name: value for name, value in own.items() if name not in found.model_fields_set})


def aggregate_settings(ingest: IngestSettings) -> AggregateSettings:
    """The settings of the aggregator, on the broker and the warehouse of the worker."""
    return AggregateSettings(
        kafka_bootstrap_servers=ingest.kafka_bootstrap_servers,
        **PLAINTEXT,
        kafka_topic=ingest.kafka_topic,
        kafka_session_timeout_ms=ingest.kafka_session_timeout_ms,
        clickhouse_url=ingest.clickhouse_url,
    )


def welcome(api: ApiSettings, ingest: IngestSettings, data: DataDir) -> str:
    """The text that is printed once everything runs."""
    url = base_url(api.host, api.port)
    key = "from INSIGHTS_API_KEYS"
    if data.key_file.exists():
        # Where output goes to a file or a collector of logs, the key must not.
        key = f"{api.keys[0]}   (kept in {data.key_file})" if sys.stdout.isatty() else f"in {data.key_file}"
    return f"""\
{READY}: {url}
  docs     {url}/docs
  broker   {ingest.kafka_bootstrap_servers}, topic {ingest.kafka_topic} with {PARTITIONS} partitions
  key      {key}
  data     {data.path}
Ctrl-C stops it."""


async def _wait_for_end(broker: EmbeddedBroker, data: DataDir) -> None:
    """Return when the broker has ended, or the data directory is gone."""
    while broker.is_running and data.is_intact:  # noqa: ASYNC110 - a process, nothing sets an event for it
        await asyncio.sleep(POLL_SECONDS)


async def _announce(server: Server, settings: IngestSettings, text: str) -> None:
    """Print `text` once the API listens and the worker has its partitions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        while not (server.started and await settled_members(admin, settings.kafka_group)):  # noqa: ASYNC110 - as above
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await admin.close()
    print(text, flush=True)


async def settled_members(admin: AIOKafkaAdminClient, group: str) -> int:
    """How many members share the partitions of a stable group; 0 during a rebalance. Raises KafkaError."""
    [response] = await admin.describe_consumer_groups([group])
    _, _, state, _, _, members = response.groups[0][:6]
    return len(members) if state == "Stable" else 0


class Stack:
    """The parts that run in this process, each a task."""

    def __init__(
        self, api: ApiSettings, ingest: IngestSettings, broker: EmbeddedBroker, data: DataDir, acked_by: AckedBy
    ) -> None:
        self._ingest = ingest
        self._data = data
        self._broker = broker
        self._warehouse = Warehouse(ingest.clickhouse_url.get_secret_value())
        self._receipts = Receipts(lambda: data.is_intact)
        awaited = self._receipts if acked_by == "clickhouse" else None
        self._publisher = KafkaEventPublisher(broker.address, ingest.kafka_topic, awaited)
        self._budgets = KafkaBudgets(broker.address)
        app = create_app(api, self._warehouse, self._publisher, self._budgets, BookPrices(ingest.prices_file))
        self._host = api.host
        self._api_url = base_url(api.host, api.port)
        self._server = make_server(app, api)
        self._worker = Worker(ingest, self._warehouse, self._receipts)
        self._aggregator = Aggregator(aggregate_settings(ingest), self._warehouse)
        self._stop_worker = asyncio.Event()

    async def run(self, sock: socket, stop: asyncio.Event, text: str) -> None:
        """Run until `stop` is set or a part fails, and print `text` when all is ready.

        Raises the error of the worker, BrokerError when the broker has ended, and DataDirError when the data directory
        is gone.
        """
        migrate(self._warehouse)
        await create_topics(self._broker.address, {self._ingest.kafka_topic: PARTITIONS})
        serve_metrics(self._ingest.metrics_port, host=self._host)
        async with serve_engine(self._data, self._broker.address, self._api_url):
            await self._run_parts(sock, stop, text)

    async def _run_parts(self, sock: socket, stop: asyncio.Event, text: str) -> None:
        serving = asyncio.create_task(self._server.serve([sock]))
        worker = asyncio.create_task(self._worker.run(self._stop_worker))
        watching = asyncio.create_task(_wait_for_end(self._broker, self._data))
        stopped = asyncio.create_task(stop.wait())
        aggregating = asyncio.create_task(self._aggregate())
        announcing = asyncio.create_task(_announce(self._server, self._ingest, text))
        await asyncio.wait([serving, worker, watching, stopped], return_when=asyncio.FIRST_COMPLETED)
        await self._stop(serving, worker, aggregating, watching)
        # The next start mends the rollups that lack it.
        self._data.has_half_stored = bool(self._receipts.unfinished)
        for task in (watching, announcing, stopped):
            task.cancel()
        await asyncio.gather(watching, announcing, stopped, return_exceptions=True)
        if not self._broker.is_running:
            raise BrokerError("the embedded broker has ended unexpectedly")
        if not self._data.is_intact:
            raise DataDirError(
                f"data directory {self._data.path} was deleted or replaced while this process used it:"
                " what was stored in it is gone"
            )
        if worker.done():
            worker.result()

    async def _aggregate(self) -> None:
        """Run the aggregator. Its errors are only logged: requests are stored and answered without it."""
        try:
            await self._aggregator.start()
            await self._aggregator.wait()
        except Exception as error:
            log.error("aggregator_failed", reason=str(error) or type(error).__name__)

    async def _answer_those_who_wait(self, *ends: asyncio.Task[None]) -> None:
        """Take no more events, and wait until those that were taken are stored and answered. Where one of `ends` has
        come, or it takes too long, the answer is that they may not be."""
        self._receipts.refuse(STOPPING)
        self._worker.flush_at_once()
        settling = asyncio.create_task(self._receipts.settle())
        await asyncio.wait([settling, *ends], timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        self._receipts.fail(STOPPING)
        await settling

    async def _stop(
        self,
        serving: asyncio.Task[None],
        worker: asyncio.Task[None],
        aggregating: asyncio.Task[None],
        watching: asyncio.Task[None],
    ) -> None:
        """Stop API, worker and aggregator in this order, so that everything that was accepted is stored."""
        await self._answer_those_who_wait(worker, watching)
        self._server.should_exit = True
        await serving
        if self._broker.is_running:
            await self._publisher.close()
            await self._budgets.close()
        if self._broker.is_running and self._data.is_intact and not worker.done():
            await drain(self._broker.address, self._ingest.kafka_topic, PARTITIONS, self._receipts)
        self._stop_worker.set()
        await asyncio.wait([worker], timeout=WORKER_STOP_SECONDS)
        aggregating.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(AGGREGATOR_STOP_SECONDS):
                await asyncio.gather(aggregating, self._aggregator.stop(), return_exceptions=True)
        self._warehouse.close()


def run_up(data_dir: Path, host: str, port: int, broker_port: int) -> None:
    """Run the whole stack until SIGINT or SIGTERM.

    Raises AddressSpaceError, DataDirError, ServiceError, BrokerError for what a person can fix.
    """
    check_address_space()
    with DataDir(data_dir) as data, listen(host, port) as sock, EmbeddedBroker(broker_port) as broker:
        api, ingest = api_settings(data, host, port), ingest_settings(data, broker)
        if data.was_killed:
            repair_rollups(data.clickhouse_url)

        async def run() -> None:
            await Stack(api, ingest, broker, data, UpSettings().events_acked_by).run(
                sock, stop_on_signals(), welcome(api, ingest, data)
            )

        asyncio.run(run())
