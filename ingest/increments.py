"""What a stored batch added to usage, told to the aggregates in motion (docs/budgets.md).

ClickHouse is the truth and aggregators compare themselves with it, so nothing here may hold up or fail a batch: what
Kafka does not take at once is dropped and counted.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from aggregator.motion.increment import SCHEMA, Source, encode
from aggregator.motion.scope import HASH_SQL
from aggregator.motion.topics import INCREMENTS, create_motion_topics
from ingest import metrics
from ingest.batch import Batch

log = structlog.get_logger(__name__)

# A gateway may tag each request with something of its own. What is beyond is left to the aggregators' reconcile.
MAX_TAG_ROWS = 2_000
SEND_SECONDS = 0.2
# How long nothing is tried after a failure.
PAUSE_SECONDS = 5.0
CLOSE_SECONDS = 0.5

COLUMNS = ("timestamp", "model_name", "user_id", "api_key_id", "tags", "status", "input_tokens", "output_tokens",
           "duration_ms")  # fmt: skip
SUMS = """
    count(*)::BIGINT AS requests,
    count(*) FILTER (is_error)::BIGINT AS errors,
    count(*) FILTER (cost IS NULL)::BIGINT AS unpriced,
    coalesce(sum(tokens), 0)::BIGINT AS tokens,
    coalesce(sum(cost), 0)::DECIMAL(38, 12) AS cost,
    coalesce(sum(duration_ms), 0)::BIGINT AS duration_ms_sum,
    count(duration_ms)::BIGINT AS duration_ms_count
"""
USAGE = f"""
WITH event AS (
    SELECT epoch_us("timestamp") // 60000000 AS minute, model_name, user_id, api_key_id, tags, is_error, cost,
        coalesce(input_tokens, 0)::BIGINT + coalesce(output_tokens, 0)::BIGINT AS tokens, duration_ms
    FROM counted
), usage AS (
    SELECT
        CASE grouping(model_name, user_id, api_key_id)
            WHEN 7 THEN 'total' WHEN 3 THEN 'model' WHEN 5 THEN 'user' ELSE 'api_key' END AS kind,
        coalesce(model_name, user_id, api_key_id, '') AS value, minute, {SUMS}
    FROM event
    GROUP BY GROUPING SETS ((minute), (minute, model_name), (minute, user_id), (minute, api_key_id))
    UNION ALL
    (SELECT 'tag' AS kind, tag AS value, minute, {SUMS}
    FROM (SELECT *, unnest(list_distinct(tags)) AS tag FROM event WHERE len(tags) > 0)
    GROUP BY tag, minute ORDER BY cost DESC LIMIT {MAX_TAG_ROWS})
)
SELECT *, {HASH_SQL} AS hash FROM usage WHERE kind = 'total' OR value != ''
"""


def usage_of(connection: duckdb.DuckDBPyConnection, events: pa.Table, is_error: pa.ChunkedArray, cost: Any) -> pa.Table:
    """Sums per scope and minute: the columns of `increment.SCHEMA`, and the `hash` that picks the partition."""
    counted = events.select(COLUMNS).append_column("is_error", is_error).append_column("cost", cost)
    connection.register("counted", counted)
    try:
        return connection.sql(USAGE).to_arrow_table()
    finally:
        connection.unregister("counted")


def messages(batch: Batch, topic_id: str, usage: pa.Table, partitions: int) -> Mapping[int, bytes]:
    """An increment for each partition that has any of its scopes."""
    source = Source(topic=batch.topic, topic_id=topic_id, partition=batch.partition, first=batch.first, last=batch.last)
    columns = usage.select(SCHEMA.names)
    targets = pa.array(usage["hash"].to_numpy() % partitions)
    return {
        target: encode(source, columns.filter(pc.equal(targets, target)).combine_chunks())
        for target in pc.unique(targets).to_pylist()
    }


class IncrementProducer:
    """Sends increments as long as Kafka takes them. `start` returns at once; `close` within CLOSE_SECONDS."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._producer: AIOKafkaProducer | None = None
        self._partitions = 0
        self._silent_until = 0.0
        self._connecting: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._connecting = asyncio.create_task(self._connect_for_ever())

    async def _connect_for_ever(self) -> None:
        while self._producer is None:
            # A repeated increment is recognised, and the embedded broker knows no idempotent producers.
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap_servers, linger_ms=2, request_timeout_ms=5_000
            )
            try:
                await create_motion_topics(self._bootstrap_servers)
                await producer.start()
                self._partitions = len(await producer.partitions_for(INCREMENTS))
                self._producer = producer
            except (KafkaError, OSError) as error:
                log.warning("increments_wait_for_kafka", reason=str(error) or type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
            finally:
                if self._producer is None:
                    await producer.stop()

    async def emit(self, batch: Batch, topic_id: str, usage: pa.Table) -> None:
        """Hand the increments of a stored batch to Kafka's client, within SEND_SECONDS or not at all. Never raises."""
        loop = asyncio.get_running_loop()
        if not usage.num_rows:
            return
        if self._producer is None or loop.time() < self._silent_until:
            metrics.INCREMENTS_DROPPED.inc()
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for partition, message in messages(batch, topic_id, usage, self._partitions).items():
                    sent = await self._producer.send(INCREMENTS, message, partition=partition)
                    sent.add_done_callback(_note)
        except (KafkaError, TimeoutError) as error:
            metrics.INCREMENTS_DROPPED.inc()
            self._silent_until = loop.time() + PAUSE_SECONDS
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
