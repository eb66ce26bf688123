"""The HTTP front is worth its faults only if the real client meets the real engine behind it."""

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from aggregator.clickhouse.client import Warehouse, is_transient
from aggregator.clickhouse.migrate import migrate
from aggregator.clickhouse.migration_files import MIGRATIONS_FOLDER, read_migrations
from aggregator.rollups import rebuild
from aggregator.rollups.measures import ROLLUPS
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.transform.decoder import Decoder
from ingest.transform.enrichment import with_derived
from ingest.transform.rows import request_payloads
from tests.integration.ingest.test_sink import batch_of
from tests.support.clickhouse_http import ClickHouseServer, Fault
from tests.support.events import MINIMAL
from tests.support.rows import Row, insert_rows, payload_of, random_rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        yield server


@pytest.fixture
def warehouse(server: ClickHouseServer, request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    warehouse = Warehouse(server.address, database=f"test_{abs(hash(request.node.name))}")
    migrate(warehouse)
    yield warehouse
    server.forget_faults()
    warehouse.close()


def rows() -> list[Row]:
    return random_rows(1, 200)


def count(warehouse: Warehouse) -> int:
    return int(warehouse.query("SELECT count() AS n FROM request_logs")[0]["n"])


def test_values_are_bound_and_rows_come_back_whole(warehouse: Warehouse) -> None:
    insert_rows(warehouse, rows(), [payload_of(row) for row in rows()])
    assert count(warehouse) == 200
    assert warehouse.query("SELECT {text:String} AS text", {"text": "o'x\\ é\n"}) == [{"text": "o'x\\ é\n"}]
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))


def test_an_error_carries_its_code(warehouse: Warehouse) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as caught:
        warehouse.query("SELECT * FROM nowhere")
    assert caught.value.code == 60


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        pytest.param(Fault(action="fail", code=242), DatabaseError, 0, id="read-only"),
        *(
            pytest.param(Fault(action="refuse", code=status), DatabaseError, 0, id=f"a balancer's {status}")
            for status in (403, 404, 500, 502)
        ),
        pytest.param(Fault(action="drop_before"), OperationalError, 0, id="dropped before"),
        pytest.param(Fault(action="drop_after"), OperationalError, 200, id="answer lost"),
    ],
)
def test_a_fault_strikes_once_and_the_same_insert_again_counts_once(
    server: ClickHouseServer, warehouse: Warehouse, fault: Fault, error: type[Exception], stored: int
) -> None:
    server.inject(fault)
    with pytest.raises(error) as caught:
        insert_rows(warehouse, rows())
    assert is_transient(caught.value)
    assert count(warehouse) == stored
    insert_rows(warehouse, rows())
    assert count(warehouse) == 200
    assert server.faults_left() == []
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))


def test_bodies_sent_as_they_are_come_back_and_count_once_with_those_that_were_squeezed(warehouse: Warehouse) -> None:
    """A worker of before has sent half of it."""
    value = json.dumps({**MINIMAL, "request_body": "Wohin? \u00e9\n" * 500}).encode()
    batch = batch_of(*[value] * 3)
    sent = Sink(warehouse, PriceBook())
    payloads = request_payloads(batch, with_derived(Decoder().decode([value] * 3).events))
    warehouse.insert("request_payloads", payloads, batch.token)
    sent.write(batch)
    sent.write(batch)
    bodies = warehouse.query("SELECT request_body FROM request_payloads")
    assert bodies == [{"request_body": "Wohin? \u00e9\n" * 500}] * 3
    assert count(warehouse) == 3


def test_deduplication_outlives_a_kill(server: ClickHouseServer, warehouse: Warehouse) -> None:
    insert_rows(warehouse, rows())
    server.kill9()
    server.start()
    insert_rows(warehouse, rows())
    assert count(warehouse) == 200
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))


def views_made_again() -> str:
    """A migration that makes every view again, as one must that changes what a rollup holds."""
    statements = [each for migration in read_migrations() for each in migration.statements]
    names = [f"{rollup.table}_view" for rollup in ROLLUPS]
    created = {
        name: next(each for each in statements if re.match(rf"CREATE MATERIALIZED.* {name} ", each)) for name in names
    }
    return "".join(f"DROP VIEW IF EXISTS {name};\n{statement};\n" for name, statement in created.items())


def test_a_batch_of_before_a_view_was_made_again_counts_once_after_it_and_after_a_kill(
    server: ClickHouseServer, tmp_path: Path
) -> None:
    """ALTER TABLE ... MODIFY QUERY of a view would make it forget tokens, at once and with the next restart."""
    warehouse = Warehouse(server.address, database="test_views_made_again")
    migrate(warehouse)
    insert_rows(warehouse, rows())
    shutil.copytree(MIGRATIONS_FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "9999_views_made_again.sql").write_text(views_made_again())
    assert [migration.number for migration in migrate(warehouse, folder=tmp_path)] == [9999]
    insert_rows(warehouse, rows())
    server.kill9()
    server.start()
    insert_rows(warehouse, rows())
    for table in ("request_logs", *(rollup.table for rollup in ROLLUPS)):
        counted = "count()" if table == "request_logs" else "sum(requests)"
        assert warehouse.query(f"SELECT {counted} AS n FROM {table}") == [{"n": 200}], table
    warehouse.close()


def test_inserts_at_the_same_moment_under_one_token_count_once(warehouse: Warehouse) -> None:
    """A zombie and its successor."""
    with ThreadPoolExecutor(4) as threads:
        for seed in range(5):
            batch = random_rows(seed, 200, first_offset=seed * 200)
            list(threads.map(lambda _, batch=batch: insert_rows(warehouse, batch), range(4)))
    assert count(warehouse) == 1000
    assert all(drift.is_zero for drift in rebuild.verify(warehouse))
