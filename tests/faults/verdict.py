"""What was produced against what is stored, record by record."""

import json
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import rebuild
from aggregator.rollups.measures import ROLLUPS

# A key is unique in a run and names the record wherever it is kept; partition and offset tell copies from the original.
STORED = """
SELECT request_id AS key, source_partition AS partition, source_offset AS offset FROM request_logs
WHERE source_topic = {topic:String}
UNION ALL
SELECT key, source_partition, source_offset FROM dead_letters WHERE source_topic = {topic:String}
"""
STORED_COUNT = f"SELECT count() AS places FROM ({STORED})"
PAYLOADS = "SELECT request_id AS key FROM request_payloads"
ROWS = "SELECT count() AS rows FROM request_logs"
COUNTED = "SELECT sum(requests) AS rows FROM {table}"

Place = tuple[str, int, int]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Verdict:
    """Counts of records. `lost` and `doubled` count rows, dead letters, payloads and rollups; `drifted` counts
    groups of rollups whose sums differ from the raw rows though their numbers of requests may agree."""

    kills: int
    produced: int
    stored: int
    lost: int
    doubled: int
    drifted: int

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.drifted)


def _key(record_key: bytes | None) -> str:
    return (record_key or b"").decode()


async def read_log(address: str, topic: str, partitions: int) -> dict[Place, bool]:
    """(key, partition, offset) of every committed record the topic holds, with whether it has a payload."""
    found: dict[Place, bool] = {}
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    async with AIOKafkaConsumer(
        bootstrap_servers=address,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=16 * 1024 * 1024,
    ) as consumer:
        consumer.assign(assigned)
        ends = await consumer.end_offsets(assigned)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    found[(_key(record.key), partition.partition, record.offset)] = _has_payload(record.value)
    return found


def _has_payload(value: bytes | None) -> bool:
    try:
        return isinstance(event := json.loads(value or b""), dict) and bool(event.get("request_body"))
    except ValueError:
        return False


def stored_places(warehouse: Warehouse, topic: str) -> Counter[Place]:
    rows = warehouse.query(STORED, {"topic": topic})
    return Counter((row["key"], row["partition"], row["offset"]) for row in rows)


def stored_count(warehouse: Warehouse, topic: str) -> int:
    """Rows and dead letters."""
    return int(warehouse.query(STORED_COUNT, {"topic": topic})[0]["places"])


def _differences(wanted: Counter[Thing], found: Counter[Thing]) -> tuple[int, int]:
    """How many are missing, and how many are there too often or should not be there at all."""
    return (wanted - found).total(), (found - wanted).total()


def judge(warehouse: Warehouse, topic: str, log: dict[Place, bool], kills: int, gone: Container[str] = ()) -> Verdict:
    """Compare what the log holds with rows and dead letters, payloads, and every rollup.

    `gone` are keys that retention deleted before they became rows; payloads go in before rows, so theirs may be there.
    """
    stored = stored_places(warehouse, topic)
    lost, doubled = _differences(Counter(log.keys()), stored)
    with_payload = Counter(place[0] for place, has_payload in log.items() if has_payload and place in stored)
    found = Counter(str(row["key"]) for row in warehouse.query(PAYLOADS) if row["key"] not in gone)
    payloads_lost, payloads_doubled = _differences(with_payload, found)
    raw = warehouse.query(ROWS)[0]["rows"]
    counts = [warehouse.query(COUNTED.format(table=rollup.table))[0]["rows"] for rollup in ROLLUPS]
    return Verdict(
        kills=kills,
        produced=len(log),
        stored=stored.total(),
        lost=lost + payloads_lost + sum(max(raw - count, 0) for count in counts),
        doubled=doubled + payloads_doubled + sum(max(count - raw, 0) for count in counts),
        drifted=sum(drift.drifted_groups for drift in rebuild.verify(warehouse)),
    )
