"""One real Apache Kafka, one ClickHouse front, and on them any number of runs, each with a topic, a consumer group
and a database of its own."""

import asyncio
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from ingest.topics.create import create_topics
from tests.faults.verdict import Place, Verdict, judge, read_log, stored_count, stored_places
from tests.support.clickhouse_http import ClickHouseServer
from tests.support.kafka import KafkaServer

SESSION_SECONDS = 1.0
PATIENCE_SECONDS = 180.0
EXIT_SECONDS = 30.0
# A worker that cannot even start must not be started for ever.
MAX_RESTARTS = 30
POLL_SECONDS = 0.1
KAFKA_SETTINGS = {"group.min.session.timeout.ms": "500", "message.max.bytes": "12000000"}
MODELS = ("gpt-4o", "claude-sonnet-4-5", "gemini-2.5-flash", "no-such-model")

WORKERS = multiprocessing.get_context("forkserver")
WORKERS.set_forkserver_preload(["tests.faults.worker", "tests.faults.__main__"])


class StuckError(Exception):
    """A run did not store everything in time; the message says how far it came and what its workers logged last."""


class Stack:
    """The servers that all runs share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kafka = KafkaServer(folder / "kafka", settings=KAFKA_SETTINGS)
        self.clickhouse = ClickHouseServer(folder / "clickhouse")
        self.broker_is_down = False


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Raises KafkaMissingError where Apache Kafka cannot run."""
    stack = Stack(folder)
    with stack.kafka, stack.clickhouse:
        yield stack


def event(rng: random.Random, key: str) -> bytes:
    """A valid event; every fifth or so has a payload."""
    value: dict[str, Any] = {
        "request_id": key,
        "timestamp": f"2026-11-21T{rng.randrange(8, 12):02}:{rng.randrange(60):02}:00Z",
        "model_name": rng.choice(MODELS),
        "status": rng.choice(("success", "success", "error")),
        "user_id": rng.choice(("ann", "ben", "cho")),
        "input_tokens": rng.randrange(5000),
        "output_tokens": rng.randrange(500),
        "duration_ms": rng.randrange(9000),
    }
    if rng.random() < 0.2:
        value["request_body"] = {"messages": ["x" * rng.randrange(300)]}
    return json.dumps(value).encode()


class Run:
    """One run of a scenario. `kills` counts processes that ended by SIGKILL, workers and servers."""

    def __init__(self, stack: Stack, rng: random.Random, partitions: int = 3) -> None:
        self.stack, self.rng, self.partitions = stack, rng, partitions
        name = uuid.uuid4().hex[:12]
        self.topic, self._group, self._database = f"events-{name}", f"group-{name}", f"run_{name}"
        self.log_file = stack.folder / f"workers-{name}.log"
        # Small, so that a run has many batches.
        self.flush_rows = 40
        self.kills = 0
        # Workers that ended by themselves, where only a permanent fault should make one.
        self.crashes = 0
        # Records of a topic that was deleted; those that retention took, and how many of them are stored.
        self.kept = 0
        self.gone: dict[Place, bool] = {}
        self.may_be_gone: dict[Place, bool] = {}
        self.workers: list[BaseProcess] = []
        self.warehouse = Warehouse(stack.clickhouse.address, self._database)
        self._number = 0

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kafka_bootstrap_servers": self.stack.kafka.address,
            "kafka_topic": self.topic,
            "kafka_group": self._group,
            "kafka_session_timeout_ms": int(SESSION_SECONDS * 1000),
            "clickhouse_url": f"{self.stack.clickhouse.address}/{self._database}",
            "flush_rows": self.flush_rows,
            "flush_seconds": 0.1,
            "metrics_port": 0,
        }

    async def __aenter__(self) -> "Run":
        migrate(self.warehouse)
        await create_topics(self.stack.kafka.address, {self.topic: self.partitions}, timeout_seconds=30)
        return self

    async def __aexit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()
        self.warehouse.command(f"DROP DATABASE {self._database} SYNC")
        self.warehouse.close()
        async with self.admin() as admin:
            await admin.delete_topics([self.topic])

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stack.kafka.address)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    # What is produced

    def events(self, count: int) -> list[tuple[str, bytes]]:
        """Keys and values of `count` new valid events."""
        first, self._number = self._number, self._number + count
        return [(key := f"r-{number}", event(self.rng, key)) for number in range(first, first + count)]

    def producer(self, **options: Any) -> AIOKafkaProducer:
        """An idempotent producer; it outlives a broker that is away for a while."""
        options = {"enable_idempotence": True, "max_request_size": 12_000_000, **options}
        return AIOKafkaProducer(bootstrap_servers=self.stack.kafka.address, **options)

    async def produce(self, records: Sequence[tuple[str, bytes]], partition: int | None = None) -> None:
        """Send `records` and wait until all are acknowledged."""
        async with self.producer() as producer:
            await self._send(producer, records, partition)

    async def _send(
        self, producer: AIOKafkaProducer, records: Sequence[tuple[str, bytes]], partition: int | None = None
    ) -> None:
        sent = [await producer.send(self.topic, value, key.encode(), partition) for key, value in records]
        await asyncio.gather(*sent)

    async def produce_slowly(self, count: int, seconds: float, share: int = 20) -> None:
        """Spread `count` events over `seconds`."""
        async with self.producer() as producer:
            for _ in range(0, count, share):
                await self._send(producer, self.events(share))
                await asyncio.sleep(seconds * share / count)

    async def produce_at_rate(self, rate: int, seconds: float) -> None:
        """`rate` events a second, in steps of a tenth of one."""
        loop = asyncio.get_running_loop()
        async with self.producer(linger_ms=20, max_batch_size=256 * 1024) as producer:
            started = loop.time()
            for step in range(int(seconds * 10)):
                await self._send(producer, self.events(rate // 10))
                await asyncio.sleep(max(0.0, started + (step + 1) / 10 - loop.time()))

    async def produce_in_transaction(self, records: Sequence[tuple[str, bytes]], commit: bool) -> None:
        """Send `records` in a transaction that is committed or aborted."""
        async with self.producer(transactional_id=f"{self.topic}-producer") as producer:
            await producer.begin_transaction()
            await self._send(producer, records)
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    async def log(self) -> dict[Place, bool]:
        """What the topic holds now."""
        return await read_log(self.stack.kafka.address, self.topic, self.partitions)

    async def delete_before(self, partition: int, offset: int) -> None:
        """Delete records as retention would."""
        places = await self.log()
        self.may_be_gone |= {place: has for place, has in places.items() if place[1] == partition and place[2] < offset}
        async with self.admin() as admin:
            await admin.delete_records({TopicPartition(self.topic, partition): RecordsToDelete(offset)})

    async def recreate_topic(self) -> None:
        """Delete the topic and recreate it at once; what it held counts as produced."""
        self.gone |= await self.log()
        async with self.admin() as admin:
            await admin.delete_topics([self.topic])
        while True:
            try:
                await create_topics(self.stack.kafka.address, {self.topic: self.partitions})
                left = await self.log()
            except KafkaError:
                continue
            if not left:
                return

    async def set_offsets_back(self, to_beginning: bool) -> None:
        """As `kafka-consumer-groups --reset-offsets` does, which drops the metadata: once the group has no member."""
        places = [TopicPartition(self.topic, number) for number in range(self.partitions)]
        async with AIOKafkaConsumer(
            bootstrap_servers=self.stack.kafka.address, group_id=self._group, enable_auto_commit=False
        ) as consumer:
            consumer.assign(places)
            committed = {place: await consumer.committed(place) or 0 for place in places}
            offsets = {place: 0 if to_beginning else self.rng.randint(0, last) for place, last in committed.items()}
            while True:
                try:
                    await consumer.commit({place: OffsetAndMetadata(offset, "") for place, offset in offsets.items()})
                    return
                except KafkaError:
                    # Those that were killed are members until their sessions end.
                    await asyncio.sleep(SESSION_SECONDS)

    # Who consumes

    def start_worker(self, point: str | None = None, countdown: int = 1) -> BaseProcess:
        from tests.faults.worker import work

        worker = WORKERS.Process(target=work, args=(self.settings, self.log_file, point, countdown), daemon=True)
        worker.start()
        self.workers.append(worker)
        return worker

    def start_insights(self, command: str, **settings: Any) -> "subprocess.Popen[bytes]":
        """The command that a user runs."""
        given = {**self.settings, **settings}
        environment = {f"INSIGHTS_{name.upper()}": str(value) for name, value in given.items()}
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", command], env={**os.environ, **environment}, stderr=log
            )

    def kill(self, worker: BaseProcess) -> None:
        if worker.is_alive():
            worker.kill()
        worker.join()
        self.reap()

    def reap(self) -> None:
        """Forget workers that have ended, and count those that were killed."""
        for worker in [worker for worker in self.workers if not worker.is_alive()]:
            self.workers.remove(worker)
            self.kills += worker.exitcode == -signal.SIGKILL
            self.crashes += worker.exitcode not in {0, -signal.SIGKILL}

    async def stop_workers(self, workers: Sequence[BaseProcess] | None = None) -> None:
        """SIGTERM to all, or to some. Raises StuckError for one that does not exit 0 within EXIT_SECONDS."""
        leaving = list(self.workers if workers is None else workers)
        for worker in leaving:
            worker.terminate()
        for worker in leaving:
            await asyncio.to_thread(worker.join, EXIT_SECONDS)
            # One that has hardly begun does not listen to signals yet.
            if worker.exitcode not in {0, -signal.SIGTERM}:
                await _show_where(worker)
                raise StuckError(f"a worker ended with {worker.exitcode} on SIGTERM\n{self.log_tail()}")
            self.workers.remove(worker)

    # What they depend on

    def kill_broker(self) -> None:
        self.stack.kafka.kill9()
        self.stack.broker_is_down = True
        self.kills += 1

    async def revive_broker(self) -> None:
        if self.stack.broker_is_down:
            await asyncio.to_thread(self.stack.kafka.start)
            self.stack.broker_is_down = False

    # What came of it

    def log_lines(self, event_name: str) -> list[dict[str, Any]]:
        """What workers have logged under a name."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        found = [json.loads(line) for line in lines if line.startswith('{"') and line.endswith("}")]
        return [line for line in found if line.get("event") == event_name]

    def log_tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-6000:] if self.log_file.exists() else ""

    def stored(self) -> int:
        """Rows and dead letters."""
        return stored_count(self.warehouse, self.topic)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS, workers: int = 0) -> None:
        """Wait for a condition, keeping `workers` workers running. Raises StuckError when it takes too long."""
        restarts = 0
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self.reap()
                    while len(self.workers) < workers:
                        self.start_worker()
                        restarts += 1
                    if restarts > MAX_RESTARTS:
                        raise StuckError(f"workers do not stay alive\n{self.log_tail()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise StuckError(f"{self.stored()} stored after {seconds:g} s\n{self.log_tail()}") from error

    async def settle(self, workers: int = 1) -> Verdict:
        """Let `workers` workers finish, stop them, and compare."""
        log = self.gone | await self.log()
        wanted = set(log)

        def is_all_stored() -> bool:
            return self.stored() >= len(wanted) and wanted <= set(stored_places(self.warehouse, self.topic))

        await self.until(is_all_stored, workers=workers)
        await self.stop_workers()
        stored = stored_places(self.warehouse, self.topic)
        kept = {place: has_payload for place, has_payload in self.may_be_gone.items() if place in stored}
        self.kept = len(kept)
        gone = {place[0] for place in self.may_be_gone if place not in kept}
        return judge(self.warehouse, self.topic, log | kept, self.kills, gone)


async def _show_where(worker: BaseProcess) -> None:
    """Have a worker that does not end write its threads and tasks into the log."""
    for number in (signal.SIGUSR2, signal.SIGUSR1):
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, number)
            await asyncio.sleep(1.0)
