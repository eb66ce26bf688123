"""Publishes what a stored batch added to usage, for the aggregators that count budgets (docs/budgets.md).

ClickHouse is the truth, and aggregators compare themselves with it. So nothing here may delay or fail a batch: an
increment that Kafka does not take at once is dropped and counted.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from aggregator.budgets.increment import SCHEMA, Source, encode
from aggregator.budgets.subject import partition_of
from aggregator.budgets.topics import INCREMENTS, create_budget_topics
from aggregator.topic_creation import TopicError
from ingest import metrics
from ingest.consumer.batch import Batch
from ingest.pricing.without_cost import unpriced_reasons

log = structlog.get_logger(__name__)

# A gateway may give each request a tag of its own. The rest reaches the aggregators with their next snapshot.
MAX_TAG_ROWS = 2_000
SEND_SECONDS = 1.0
# How long to wait after a failure before the next send.
PAUSE_SECONDS = 5.0
CLOSE_SECONDS = 0.5

SUMS = SCHEMA.names[3:]
WITHOUT_COST = {"unpriced": "no_price", "missing_usage": "no_usage", "failed_without_usage": "failed_without_usage"}
SCOPE_COLUMNS = (("model", "model_name"), ("user", "user_id"), ("api_key", "api_key_id"))
MICROSECONDS_PER_MINUTE = 60_000_000


def _counts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whole numbers, 0 where there is none."""
    return pc.fill_null(pc.cast(column, pa.int64()), 0)


def _measures(events: pa.Table, is_error: pa.ChunkedArray, cost: pa.ChunkedArray) -> pa.Table:
    """The sums that each event adds to, with its minute."""
    dollars = SCHEMA.field("cost").type
    reasons = unpriced_reasons(events, is_error, cost)
    micros = pc.cast(pc.floor_temporal(events["timestamp"], unit="minute"), pa.int64())
    return pa.table(
        {
            "minute": pc.divide(micros, MICROSECONDS_PER_MINUTE),
            "requests": pa.repeat(pa.scalar(1, pa.int64()), len(events)),
            "errors": _counts(is_error),
            **{name: _counts(pc.equal(reasons, reason)) for name, reason in WITHOUT_COST.items()},
            "tokens": pc.add(_counts(events["input_tokens"]), _counts(events["output_tokens"])),
            "cost": pc.fill_null(cost.cast(dollars), pa.scalar(0, pa.int64()).cast(dollars)),
            "duration_ms_sum": _counts(events["duration_ms"]),
            "duration_ms_count": _counts(pc.is_valid(events["duration_ms"])),
        }
    )


def _sums(kind: str, values: Any, measures: pa.Table) -> pa.Table:
    """Sums by value and minute, in the shape of SCHEMA. Decimals of 38 digits add up exactly."""
    grouped = (
        measures.append_column("value", values)
        .group_by(["value", "minute"], use_threads=False)
        .aggregate([(name, "sum") for name in SUMS])
    )
    kinds = pa.repeat(pa.scalar(kind), len(grouped))
    columns = [kinds, grouped["value"].cast(pa.string()), grouped["minute"], *(grouped[f"{n}_sum"] for n in SUMS)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _tag_sums(tags: pa.ChunkedArray, measures: pa.Table) -> pa.Table:
    """A tag that an event has twice counts once; the MAX_TAG_ROWS most expensive."""
    tagged = pa.table({"row": pc.list_parent_indices(tags), "tag": pc.list_flatten(tags)})
    once = tagged.group_by(["row", "tag"], use_threads=False).aggregate([])
    sums = _sums("tag", once["tag"], measures.take(once["row"]))
    return sums.sort_by([("cost", "descending")]).slice(0, MAX_TAG_ROWS) if len(sums) > MAX_TAG_ROWS else sums


def usage_of(events: pa.Table, is_error: pa.ChunkedArray, cost: pa.ChunkedArray) -> pa.Table:
    """Sums per scope and minute: the columns of `increment.SCHEMA`."""
    measures = _measures(events, is_error, cost)
    parts = [_sums("total", pa.repeat(pa.scalar(""), len(events)), measures)]
    parts += [_sums(kind, events[column], measures) for kind, column in SCOPE_COLUMNS]
    parts.append(_tag_sums(events["tags"], measures))
    usage = pa.concat_tables(parts)
    return usage.filter(pc.or_(pc.equal(usage["kind"], "total"), pc.not_equal(usage["value"], "")))


def messages(batch: Batch, usage: pa.Table, partitions: int) -> Mapping[int, bytes]:
    """An increment for each partition that has any of its scopes."""
    source = Source(
        topic=batch.topic, topic_id=batch.topic_id, partition=batch.partition, first=batch.first, last=batch.last
    )
    scopes = zip(usage["kind"].to_pylist(), usage["value"].to_pylist(), strict=True)
    targets = np.array([partition_of(kind, value, partitions) for kind, value in scopes])
    order = np.argsort(targets, kind="stable")
    sorted_usage = usage.take(pa.array(order)).combine_chunks()
    found, firsts, counts = np.unique(targets[order], return_index=True, return_counts=True)
    return {
        int(target): encode(source, sorted_usage.slice(first, count))
        for target, first, count in zip(found, firsts, counts, strict=True)
    }


class IncrementProducer:
    """Sends increments while Kafka takes them. `start` returns at once; `close` within CLOSE_SECONDS."""

    def __init__(self, bootstrap_servers: str, **client_options: Any) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._client_options = client_options
        self._producer: AIOKafkaProducer | None = None
        self._partitions = 0
        self._silent_until = 0.0
        self._connecting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._connecting = asyncio.create_task(self._connect_for_ever())

    async def _connect_for_ever(self) -> None:
        while self._producer is None:
            # Not idempotent: aggregators recognise a repeated increment, and the embedded broker has no idempotence.
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap_servers, linger_ms=2, request_timeout_ms=5_000, **self._client_options
            )
            try:
                await create_budget_topics(self._bootstrap_servers, **self._client_options)
                await producer.start()
                self._partitions = len(await producer.partitions_for(INCREMENTS))
                self._producer = producer
            except (KafkaError, TopicError, OSError) as error:
                log.warning("increments_wait_for_kafka", reason=str(error) or type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
            finally:
                if self._producer is None:
                    await producer.stop()

    def encoded(self, batch: Batch, usage: pa.Table) -> Mapping[int, bytes]:
        """The messages of a stored batch, by partition; none while Kafka is unavailable.

        To be called in the thread that has stored the batch: in the event loop it would block everything else.
        """
        if not usage.num_rows:
            return {}
        if self._producer is None or time.monotonic() < self._silent_until:
            metrics.INCREMENTS_DROPPED.inc()
            return {}
        return messages(batch, usage, self._partitions)

    async def emit(self, increments: Mapping[int, bytes]) -> None:
        """Pass increments to Kafka's client, within SEND_SECONDS or not at all. Never raises."""
        if self._producer is None:
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for partition, message in increments.items():
                    sent = await self._producer.send(INCREMENTS, message, partition=partition)
                    sent.add_done_callback(_note)
        except (KafkaError, TimeoutError) as error:
            metrics.INCREMENTS_DROPPED.inc()
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            log.warning("increments_dropped", reason=str(error) or type(error).__name__)

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._producer is not None:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._producer.stop()
            except (KafkaError, TimeoutError) as error:
                log.warning("increments_dropped", reason=str(error) or type(error).__name__)


def _note(sent: "asyncio.Future[Any]") -> None:
    if not sent.cancelled() and sent.exception() is not None:
        metrics.INCREMENTS_DROPPED.inc()
