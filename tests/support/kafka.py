"""Brokers for tests. `INSIGHTS_TEST_STACK` chooses the kind (and where ClickHouse is, see tests/conftest.py):

- `embedded` (default): Tansu, which needs nothing but the `embedded` extra;
- `kafka`: Apache Kafka, one node in KRaft mode; needs Java 17 and, the first time, Maven;
- `docker`: Apache Kafka in a container; needs a Docker engine;
- `external`: the Kafka at `INSIGHTS_TEST_KAFKA` (host:port).

`python -m tests.support.kafka [port]` runs the `kafka` kind until Ctrl-C.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from cli.local_stack.broker import HOST, EmbeddedBroker, answers_kafka, is_listening
from cli.local_stack.supervisor import start_supervised, stop_supervised
from ingest.topics.create import create_topics

if TYPE_CHECKING:
    from tests.support.containers import KafkaInDocker

STACKS = ("embedded", "kafka", "docker", "external")
PARTITIONS = 3

KAFKA_VERSION = "4.3.1"
LOG4J_VERSION = "2.25.4"
START_TIMEOUT_SECONDS = 180.0
# For what takes a second when nothing else runs.
PATIENCE_SECONDS = 120.0
POM = f"""<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
JAVA_OPTIONS = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# One node, topics only where a test makes them, groups that form at once, and a restart after `kill9` that does
# not wait long for the session that was killed.
SERVER_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


class KafkaMissingError(Exception):
    """Apache Kafka cannot run on this machine; the message says what is missing."""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing uses.

    Below those that systems give to outgoing connections: one of these could take it before the server does.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def kafka_jars() -> Path:
    """Folder of Apache Kafka's jars, fetched by Maven the first time. Raises KafkaMissingError."""
    if shutil.which("java") is None:
        raise KafkaMissingError("Apache Kafka needs java (17 or newer) on the PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "router-insights"
    folder = cache / f"kafka-{KAFKA_VERSION}"
    if not folder.exists():
        if shutil.which("mvn") is None:
            raise KafkaMissingError("fetching Apache Kafka the first time needs mvn (Maven) on the PATH")
        cache.mkdir(parents=True, exist_ok=True)
        _fetch_jars(folder)
    return folder


def _fetch_jars(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        (Path(scratch) / "pom.xml").write_text(POM)
        command = ["mvn", "--batch-mode", "-q", "dependency:copy-dependencies", "-DoutputDirectory=jars"]
        outcome = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            raise KafkaMissingError(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}: {outcome.stdout[-1000:]}")
        # One step, so that another run never sees half a folder; it may also have been first.
        if not folder.exists():
            (Path(scratch) / "jars").rename(folder)


class KafkaServer:
    """One Apache Kafka node whose data is in `folder`: it may be stopped, killed and started again on it.

    `settings` are added to server.properties, such as `{"log.retention.check.interval.ms": "1000"}`.
    Raises KafkaMissingError where it cannot run.
    """

    def __init__(self, folder: Path, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._port = port or free_port()
        self._classpath = f"{kafka_jars()}/*"
        self._properties = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_properties(settings or {})

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    def _write_properties(self, settings: Mapping[str, str]) -> None:
        controller = f"{HOST}:{free_port()}"
        lines = {
            **SERVER_SETTINGS,
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "controller.quorum.bootstrap.servers": controller,
            "log.dirs": str(self._folder / "data"),
            **settings,
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return ["java", *JAVA_OPTIONS, "-cp", self._classpath, main_class, *arguments]

    def _format_storage(self) -> None:
        cluster_id = "router-insights-tests-"
        command = self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id)
        subprocess.run([*command, "-c", str(self._properties)], check=True, capture_output=True)

    def start(self) -> None:
        """Start, the first time on empty storage, and wait until it answers."""
        if not (self._folder / "data" / "meta.properties").exists():
            self._format_storage()
        with (self._folder / "server.log").open("ab") as log:
            self._process = start_supervised(
                self._java("kafka.Kafka", str(self._properties)), grace_seconds=10, output=log
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not answers_kafka(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Apache Kafka did not start: {self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self) -> str:
        return (self._folder / "server.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Shut down in good order."""
        if self._process is not None:
            stop_supervised(self._process)
            self._process = None

    def kill9(self) -> None:
        """End it as a power cut would; `start` runs it on the same data again."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self.stop()
        while is_listening(self._port):
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class TansuServer(EmbeddedBroker):
    """The embedded broker, for tests that bring a broker down; it forgets everything each time."""

    def kill9(self) -> None:
        self.stop()


def stack() -> str:
    """The kind of broker to test on. Fails the run for an unknown kind."""
    kind = os.environ.get("INSIGHTS_TEST_STACK", "embedded")
    if kind not in STACKS:
        pytest.exit(f"INSIGHTS_TEST_STACK={kind}: allowed are {', '.join(STACKS)}", returncode=4)
    return kind


def _server(folder: Path) -> "KafkaServer | TansuServer | KafkaInDocker":
    if stack() == "embedded":
        return TansuServer(free_port())
    if stack() == "docker":
        from tests.support.containers import KafkaInDocker, require_docker

        require_docker()
        return KafkaInDocker()
    try:
        return KafkaServer(folder)
    except KafkaMissingError as error:
        pytest.skip(str(error))


def has_idempotence() -> bool:
    """Whether the broker knows idempotent producers."""
    return stack() != "embedded"


async def read_topic(address: str, topic: str) -> list[ConsumerRecord]:
    """Every record the topic has now, by partition and offset."""
    # It exists, so this only returns how many partitions it has.
    count = (await create_topics(address, {topic: PARTITIONS}, timeout_seconds=PATIENCE_SECONDS))[topic]
    partitions = [TopicPartition(topic, number) for number in range(count)]
    async with AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        records: list[ConsumerRecord] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for fetched in (await consumer.getmany(timeout_ms=200)).values():
                records += fetched
    return sorted(records, key=lambda record: (record.partition, record.offset))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the broker that all tests share."""
    if stack() == "external":
        address = os.environ.get("INSIGHTS_TEST_KAFKA")
        if not address:
            pytest.exit("INSIGHTS_TEST_STACK=external needs INSIGHTS_TEST_KAFKA=host:port", returncode=4)
        yield address
        return
    with _server(tmp_path_factory.mktemp("kafka")) as server:
        yield server.address


@pytest.fixture
def own_broker(tmp_path: Path) -> "Iterator[KafkaServer | TansuServer | KafkaInDocker]":
    """A broker of the test's own, running, to be brought down and up again."""
    if stack() == "external":
        pytest.skip("the external broker is not ours to bring down")
    with _server(tmp_path / "kafka") as server:
        yield server


@pytest.fixture
async def topic(broker: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A topic of the test's own, of PARTITIONS partitions or as many as `indirect` parametrisation says."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    partitions = getattr(request, "param", PARTITIONS)
    await create_topics(broker, {name: partitions}, timeout_seconds=PATIENCE_SECONDS)
    yield name
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_topics([name])
    await admin.close()


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9092
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="router-insights-kafka-") as folder, contextlib.suppress(KeyboardInterrupt):
        try:
            with KafkaServer(Path(folder), port) as server:
                print(f"Apache Kafka {KAFKA_VERSION} on {server.address}, until Ctrl-C", flush=True)
                signal.pause()
        except (KafkaMissingError, RuntimeError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
