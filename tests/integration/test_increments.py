"""What a batch adds to usage: the sums in SQL against sums in Python, and their way through the encoding."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import REGISTRY

from aggregator.motion.increment import Source, decode, encode
from aggregator.motion.scope import ScopeKind, partition_of
from ingest.batch import Batch
from ingest.engine import open_duckdb
from ingest.increments import MAX_TAG_ROWS, SEND_SECONDS, IncrementProducer, messages, usage_of
from ingest.sink import is_error
from tests.support.rows import LOG_SCHEMA, Row, random_rows

PARTITIONS = 6
Sums = dict[tuple[str, str, int], list[Any]]


def usage_table(rows: list[Row]) -> pa.Table:
    table = pa.Table.from_pylist([{**row, "metadata": json.dumps(row["metadata"])} for row in rows], LOG_SCHEMA)
    return usage_of(open_duckdb(), table, is_error(table), table["cost"])


def scopes(row: Row) -> set[tuple[str, str]]:
    named = {("model", row["model_name"]), ("user", row["user_id"]), ("api_key", row["api_key_id"])}
    return {("total", ""), *(pair for pair in named if pair[1]), *(("tag", tag) for tag in row["tags"])}


def brute_force(rows: list[Row]) -> Sums:
    sums: Sums = defaultdict(lambda: [0, 0, 0, 0, Decimal(0), 0, 0])
    for row in rows:
        added = [
            1,
            int(row["is_error"]),
            int(row["cost"] is None),
            (row["input_tokens"] or 0) + (row["output_tokens"] or 0),
            row["cost"] or Decimal(0),
            row["duration_ms"] or 0,
            int(row["duration_ms"] is not None),
        ]
        for kind, value in scopes(row):
            key = (kind, value, int(row["timestamp"].timestamp() // 60))
            sums[key] = [a + b for a, b in zip(sums[key], added, strict=True)]
    return dict(sums)


@dataclass
class OneRecord:
    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b""
    headers: Sequence[tuple[str, bytes]] = ()


def batch(first: int = 5, count: int = 3) -> Batch:
    return Batch("events", 4, [OneRecord(first + n) for n in range(count)], 0, 0)


def test_the_messages_hold_every_sum_once_and_in_the_partition_of_its_scope() -> None:
    rows = random_rows(seed=11, count=500)
    sent = messages(batch(), "topic-id", usage_table(rows), PARTITIONS)
    found: Sums = {}
    for partition, message in sent.items():
        increment = decode(message)
        assert increment.source == Source(topic="events", topic_id="topic-id", partition=4, first=5, last=7)
        for usage in increment.usage:
            assert partition_of(usage.kind, usage.value, PARTITIONS) == partition
            assert (usage.kind, usage.value, usage.minute) not in found
            found[(usage.kind, usage.value, usage.minute)] = list(usage[3:])
    assert found == brute_force(rows)
    assert {kind for kind, _, _ in found} == {kind.value for kind in ScopeKind}


def test_tags_of_their_own_for_each_request_are_bounded() -> None:
    rows = [{**row, "tags": [f"request-{n}", "all"]} for n, row in enumerate(random_rows(1, MAX_TAG_ROWS + 500))]
    kinds = usage_table(rows)["kind"].to_pylist()
    assert kinds.count("tag") == MAX_TAG_ROWS


def test_no_events_say_nothing() -> None:
    assert usage_table([]).num_rows == 0
    assert messages(batch(), "topic-id", usage_table([]), PARTITIONS) == {}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="JSON"),
        pytest.param(encode(batch_source := Source(topic="t", topic_id="", partition=0, first=0, last=0),
                            usage_table([]).drop_columns("hash"))[:40], id="cut"),
    ],
)  # fmt: skip
def test_what_is_no_increment_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode(message)


async def test_a_kafka_that_is_away_neither_fails_nor_holds_up_a_batch() -> None:
    producer = IncrementProducer("127.0.0.1:9")
    producer.start()
    before = REGISTRY.get_sample_value("insights_increments_dropped_total") or 0.0
    usage = usage_table(random_rows(1, 10))
    async with asyncio.timeout(SEND_SECONDS + 1.0):
        await producer.emit(batch(), "topic-id", usage)
    assert REGISTRY.get_sample_value("insights_increments_dropped_total") == before + 1
    await asyncio.sleep(0.05)
    await producer.close()
