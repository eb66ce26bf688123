"""Repricing: rows get the costs of the prices in force, nothing else of them changes, and the rollups follow."""

import threading
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import rebuild
from aggregator.times import Span
from ingest.consumer.batch import Batch
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.pricing import reprice as module
from ingest.pricing.operator_file import parse
from ingest.pricing.reprice import Repriced, reprice
from tests.integration.ingest.test_sink import HOUR_MS, StoredRecord, encode

DAY = Span(datetime.fromisoformat("2026-11-20T00:00:00Z"), datetime.fromisoformat("2026-11-21T00:00:00Z"))
MODELS = ("mine", "gpt-4o", "no-such-model")
CORRECTED = PriceBook(parse("prices: [{model: mine, input: 3, output: 5}]\nfees: [{rate: 0.1}]", "p"), "corrected")
ORIGINAL = PriceBook(parse("prices: [{model: mine, input: 1, output: 5}]\nfees: [{rate: 0.1}]", "p"), "original")


def batch(first: int, count: int, day: int = 20) -> Batch:
    values = (
        encode(
            request_id=f"r{n}", model_name=MODELS[n % 3], input_tokens=1_000_000, output_tokens=n,
            timestamp=f"2026-11-{day}T{n % 24:02}:30:00Z", user_id=f"u{n % 5}", usage={"web_searches": 1},
        )
        for n in range(first, first + count)
    )  # fmt: skip
    records = [StoredRecord(first + place, value) for place, value in enumerate(values)]
    return Batch("request-events", day, records, HOUR_MS, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(module, "PIECE_ROWS", 7)


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    sink = Sink(warehouse, ORIGINAL)
    sink.write(batch(0, 90))
    sink.write(batch(0, 30, day=22))
    return warehouse


def stored(warehouse: Warehouse) -> list[dict[str, Any]]:
    return warehouse.query(
        "SELECT * EXCEPT metadata FROM request_logs ORDER BY timestamp, request_id, source_partition, source_offset"
        " SETTINGS asterisk_include_alias_columns = 1"
    )


def leftovers(warehouse: Warehouse) -> list[dict[str, Any]]:
    return warehouse.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, 'reprice_')"
    )


def assert_no_drift(warehouse: Warehouse) -> None:
    assert [drift for drift in rebuild.verify(warehouse) if not drift.is_zero] == []


def by_model(repriced: Repriced) -> dict[str, tuple[Any, ...]]:
    return {
        each.model_name: (
            each.rows, each.changed_rows, each.old_cost, each.new_cost, each.old_unpriced, each.new_unpriced,
        )
        for each in repriced.totals
    }  # fmt: skip


def test_rows_of_the_range_whose_price_was_corrected_cost_what_new_rows_would(filled: Warehouse) -> None:
    before = stored(filled)
    repriced = reprice(filled, DAY, CORRECTED)
    old = sum(
        (row["cost"] for row in before if row["model_name"] == "mine" and row["source_partition"] == 20), Decimal(0)
    )
    assert by_model(repriced)["mine"] == (30, 30, old, old + 30 * Decimal("2.2"), 0, 0)
    assert by_model(repriced)["gpt-4o"][:2] == (30, 0)
    assert by_model(repriced)["no-such-model"] == (30, 0, 0, 0, 30, 30)
    for was, is_now in zip(before, stored(filled), strict=True):
        if was["model_name"] == "mine" and was["source_partition"] == 20:
            assert is_now["price_id"] == was["price_id"].replace("input=1", "input=3")
            assert (is_now["input_tokens_cost_before_fee"], is_now["price_version"]) == (3, "corrected")
            assert is_now["cost"] == was["cost"] + Decimal("2.2")
            assert is_now["output_tokens_cost"] == was["output_tokens_cost"]
        else:
            assert is_now == was
    assert all(drift.is_zero for drift in repriced.drifts)
    assert_no_drift(filled)
    assert leftovers(filled) == []


def test_a_second_run_changes_nothing(filled: Warehouse) -> None:
    reprice(filled, DAY, CORRECTED)
    before = stored(filled)
    assert reprice(filled, DAY, CORRECTED).changed_rows == 0
    assert stored(filled) == before


def test_a_dry_run_tells_the_same_and_changes_nothing(filled: Warehouse) -> None:
    before = stored(filled)
    dry = reprice(filled, DAY, CORRECTED, dry_run=True)
    assert stored(filled) == before
    assert dry.totals == reprice(filled, DAY, CORRECTED).totals


def test_one_model_alone_can_be_repriced(filled: Warehouse) -> None:
    assert set(by_model(reprice(filled, DAY, CORRECTED, model="gpt-4o"))) == {"gpt-4o"}
    assert by_model(reprice(filled, Span(), CORRECTED, model="mine"))["mine"][:2] == (40, 40)
    assert_no_drift(filled)


def test_what_becomes_priced_and_what_no_longer_is_are_both_taken_over(filled: Warehouse) -> None:
    book = PriceBook(parse("prices: [{model: no-such-*, input: 2, output: 0}]", "p"), "other")
    repriced = by_model(reprice(filled, DAY, book))
    assert repriced["no-such-model"] == (30, 30, 0, 60, 30, 0)
    assert repriced["mine"][1:] == (30, repriced["mine"][2], 0, 0, 30)
    assert_no_drift(filled)


def test_a_run_that_was_interrupted_is_finished_by_the_next(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "rebuild", interrupt)
        with pytest.raises(KeyboardInterrupt):
            reprice(filled, DAY, CORRECTED)
    assert any(not drift.is_zero for drift in rebuild.verify(filled))
    repriced = reprice(filled, DAY, CORRECTED)
    assert (repriced.changed_rows, all(drift.is_zero for drift in repriced.drifts)) == (0, True)
    assert_no_drift(filled)


def test_a_batch_that_is_written_again_after_repricing_is_still_counted_once(filled: Warehouse) -> None:
    reprice(filled, DAY, CORRECTED)
    before = stored(filled)
    Sink(filled, ORIGINAL).write(batch(0, 90))
    assert stored(filled) == before
    assert_no_drift(filled)


def test_rows_that_arrive_meanwhile_are_neither_lost_nor_doubled(
    filled: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 3.0)
    sink, stop, written = Sink(filled, CORRECTED), threading.Event(), []

    def ingest() -> None:
        first = 1000
        while not stop.is_set():
            records = batch(first, 20).records
            sink.write(Batch("request-events", 20, records, HOUR_MS + first, sink.generation()))
            written.append(first)
            first += 20

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        repriced = reprice(filled, DAY, CORRECTED)
    finally:
        stop.set()
        thread.join()
    assert written
    assert all(drift.is_zero for drift in repriced.drifts)
    [row] = filled.query("SELECT count() AS n, uniqExact(source_partition, source_offset) AS u FROM request_logs")
    assert row["n"] == row["u"] == 120 + 20 * len(written)
    assert_no_drift(filled)
