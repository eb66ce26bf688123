import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aggregator.clickhouse.client import Warehouse
from aggregator.tables.dead_letters import Selection, drop, newest, reasons
from aggregator.times import Span
from cli.main import app
from ingest.consumer.batch import Batch
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from tests.integration.ingest.test_sink import StoredRecord, encode
from tests.support.kafka import read_topic

MORNING = datetime(2026, 11, 20, 8, tzinfo=UTC)


def write(
    warehouse: Warehouse, *values: bytes, at: datetime = MORNING, topic: str = "request-events", first: int = 0
) -> None:
    records = [StoredRecord(first + place, value) for place, value in enumerate(values)]
    Sink(warehouse, PriceBook()).write(Batch(topic, 0, records, int(at.timestamp() * 1000), 0))


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    write(warehouse, b"{", b"\xff\xfe", encode(status=5))
    write(warehouse, encode(input_tokens=-1), b"[]", at=MORNING + timedelta(hours=2), first=3)
    return warehouse


def offsets(warehouse: Warehouse, selection: Selection) -> list[int]:
    return [letter.offset for letter in newest(warehouse, selection, 100)]


def test_dead_letters_are_selected_by_reason_and_by_time(filled: Warehouse) -> None:
    assert offsets(filled, Selection()) == [4, 3, 2, 1, 0]
    assert offsets(filled, Selection(reason="json_invalid")) == [1, 0]
    assert offsets(filled, Selection(span=Span(MORNING + timedelta(hours=1)))) == [4, 3]
    assert offsets(filled, Selection(span=Span(MORNING, MORNING + timedelta(hours=2)))) == [2, 1, 0]
    assert offsets(filled, Selection(topic="request-events", partition=0, offset=3)) == [3]
    assert offsets(filled, Selection(reason="' OR 1 --")) == []


def test_reasons_are_counted_with_their_fields(filled: Warehouse) -> None:
    counted = {(row["reason"], row["field"]): row["letters"] for row in reasons(filled, Selection())}
    assert counted == {
        ("json_invalid", ""): 2,
        ("string_type", "status"): 1,
        ("greater_than_equal", "input_tokens"): 1,
        ("model_type", ""): 1,
    }


def test_the_original_bytes_come_back(filled: Warehouse) -> None:
    assert [letter.value for letter in newest(filled, Selection(reason="json_invalid"), 10)] == [b"\xff\xfe", b"{"]


def test_dropping_a_selection_leaves_the_others(filled: Warehouse) -> None:
    assert drop(filled, Selection(reason="json_invalid")) == 2
    assert offsets(filled, Selection()) == [4, 3, 2]


def run(monkeypatch: pytest.MonkeyPatch, warehouse: Warehouse, *arguments: str, **options: Any) -> Result:
    monkeypatch.setattr("cli.adapters.clickhouse.open_warehouse", lambda url: warehouse)
    monkeypatch.setenv("COLUMNS", "140")
    return CliRunner().invoke(app, ["dead-letters", *arguments], **options)


def test_list_shows_reasons_and_the_newest_letters(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(monkeypatch, filled, "list", "--limit", "1")
    assert shown.exit_code == 0
    assert "json_invalid" in shown.output
    assert re.findall(r"request-events/0/\d+", shown.output) == ["request-events/0/4"]
    assert run(monkeypatch, filled, "list", "--reason", "nothing").output == "no dead letters\n"


def test_show_prints_one_whole(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(monkeypatch, filled, "show", "request-events/0/1")
    assert (shown.exit_code, r"\xff\xfe" in shown.output) == (0, True)
    assert run(monkeypatch, filled, "show", "request-events/0/99").exit_code == 1
    refused = run(monkeypatch, filled, "show", "request-events")
    assert (refused.exit_code, "TOPIC/PARTITION/OFFSET" in refused.output) == (2, True)


def test_drop_asks_first(filled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, filled, "drop", input="n\n").exit_code == 1
    assert len(offsets(filled, Selection())) == 5
    assert "dropped 5 dead letters" in run(monkeypatch, filled, "drop", "--yes").output
    assert offsets(filled, Selection()) == []


async def test_replay_sends_the_bytes_back_and_drops_what_kafka_has(
    warehouse: Warehouse, broker: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(warehouse, b"{", encode(status=5), b"x" * 2_000_000, topic=topic)
    replayed = await asyncio.to_thread(run, monkeypatch, warehouse, "replay", "--bootstrap-servers", broker)
    assert (replayed.exit_code, "sent 2 dead letters again; 1 were cut at 1 MB and stay" in replayed.output) == (
        1,
        True,
    )
    assert sorted(record.value for record in await read_topic(broker, topic)) == sorted([b"{", encode(status=5)])
    assert offsets(warehouse, Selection()) == [2]
