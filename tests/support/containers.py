"""Apache Kafka and ClickHouse as containers, for `INSIGHTS_TEST_STACK=docker`. Without a Docker engine the tests that
need them are skipped, with the reason."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from cli.local_stack.broker import HOST
from tests.support.kafka import KAFKA_VERSION, SERVER_SETTINGS, START_TIMEOUT_SECONDS, free_port

KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:26.9"
KAFKA_PORT, CONTROLLER_PORT, CLICKHOUSE_PORT = 9092, 9093, 8123


def require_docker() -> None:
    """Skips the test where no Docker engine answers."""
    # Its client leaves the socket on which nobody answered to the garbage collector, which warns of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        complaint = _complaint()
        gc.collect()
    if complaint:
        pytest.skip(f"INSIGHTS_TEST_STACK=docker needs a Docker engine: {complaint}")


def _complaint() -> str:
    from docker import DockerClient
    from docker.errors import DockerException

    try:
        DockerClient.from_env().close()
    except DockerException as error:
        return str(error)
    return ""


class KafkaInDocker:
    """One Apache Kafka node whose port here is the one that it advertises. `kill9` and `start` keep its data."""

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        self._port = free_port()
        settings = {
            **SERVER_SETTINGS,
            "listeners": f"PLAINTEXT://:{KAFKA_PORT},CONTROLLER://:{CONTROLLER_PORT}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "controller.quorum.voters": f"1@localhost:{CONTROLLER_PORT}",
        }
        self._container = (
            DockerContainer(KAFKA_IMAGE)
            .with_envs(**{f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in settings.items()})
            .with_bind_ports(KAFKA_PORT, self._port)
            .waiting_for(
                LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(int(START_TIMEOUT_SECONDS))
            )
        )
        self._is_created = False

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    def start(self) -> None:
        if self._is_created:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._is_created = True

    def stop(self) -> None:
        """Shut down in good order; its data stay."""
        self._container.get_wrapped_container().stop()

    def kill9(self) -> None:
        self._container.get_wrapped_container().kill("SIGKILL")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._container.stop()


@contextmanager
def clickhouse_in_docker() -> Iterator[str]:
    """Its address as Warehouse takes it."""
    from testcontainers.community.clickhouse import ClickHouseContainer

    with ClickHouseContainer(CLICKHOUSE_IMAGE, username="insights", password="insights", dbname="insights") as server:
        host, port = server.get_container_host_ip(), server.get_exposed_port(CLICKHOUSE_PORT)
        yield f"http://{server.username}:{server.password}@{host}:{port}"
