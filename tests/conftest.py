"""Fixtures every test may use. One ClickHouse serves the whole run: chDB (one directory per process), a container
where `INSIGHTS_TEST_STACK` is `docker`, the one at `INSIGHTS_TEST_CLICKHOUSE` (a URL) where it is `external` and that
is given. Each test that asks for `warehouse` gets a migrated database of its own there."""

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from tests.support.analytics_stack import analytics, examples
from tests.support.checkout import ROOT
from tests.support.containers import clickhouse_in_docker, require_docker
from tests.support.kafka import broker, own_broker, stack, topic

__all__ = ["analytics", "broker", "examples", "own_broker", "topic"]


# How long an example takes depends on what else the machine does, and says nothing about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# What tests start as processes finds the Python client as they do (`pythonpath` in pyproject.toml).
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "clients/python"), os.environ.get("PYTHONPATH")]))

# A job in the background is started with SIGINT ignored, and children inherit that; the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    if stack() == "docker":
        require_docker()
        with clickhouse_in_docker() as address:
            yield address
        return
    if stack() == "external" and "INSIGHTS_TEST_CLICKHOUSE" in os.environ:
        yield os.environ["INSIGHTS_TEST_CLICKHOUSE"].rstrip("/")
        return
    with tempfile.TemporaryDirectory(prefix="insights-test-") as folder:
        yield f"chdb://{Path(folder).resolve()}"


@pytest.fixture
def empty_warehouse(engine_url: str) -> Iterator[Warehouse]:
    """A database name of its own, not created yet."""
    warehouse = Warehouse(engine_url, database=f"test_{uuid.uuid4().hex[:12]}")
    yield warehouse
    warehouse.command(f"DROP DATABASE IF EXISTS {warehouse.database}")
    warehouse.close()


# Tables before the views that fill them.
CREATED = """
SELECT create_table_query AS statement FROM system.tables WHERE database = currentDatabase()
ORDER BY engine = 'MaterializedView', name
"""


@pytest.fixture(scope="session")
def migrated(engine_url: str) -> Iterator[tuple[str, list[str]]]:
    """A migrated database that stays empty, and the statements that make its tables as migrations have left them."""
    warehouse = Warehouse(engine_url, database=f"test_{uuid.uuid4().hex[:12]}")
    migrate(warehouse)
    yield warehouse.database, [row["statement"] for row in warehouse.query(CREATED)]
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()


@pytest.fixture
def warehouse(empty_warehouse: Warehouse, migrated: tuple[str, list[str]]) -> Warehouse:
    """A copy of `migrated`: a tenth of the statements, and so of the time."""
    template, statements = migrated
    empty_warehouse.create_database()
    for statement in statements:
        empty_warehouse.command(statement.replace(template, empty_warehouse.database))
    empty_warehouse.command(f"INSERT INTO schema_migrations SELECT * FROM {template}.schema_migrations")
    return empty_warehouse
