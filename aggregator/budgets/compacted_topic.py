"""A compacted topic of one partition as a dictionary: the last value of each key."""

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from aggregator.errors import InsightsError

TIMEOUT_SECONDS = 10.0


class TopicUnavailableError(InsightsError):
    """Kafka does not answer, or has no such topic: try again later."""


class CompactedTopic:
    """Reads `topic` from its beginning, and writes to it. For one event loop; use it as `async with`."""

    def __init__(self, bootstrap_servers: str, topic: str, **client_options: Any) -> None:
        self._partition = TopicPartition(topic, 0)
        options = {"bootstrap_servers": bootstrap_servers, **client_options}
        self._consumer = AIOKafkaConsumer(auto_offset_reset="earliest", **options)
        # Values are whole, so one that is sent twice does no harm; the embedded broker knows no idempotent producers.
        self._producer = AIOKafkaProducer(acks="all", request_timeout_ms=int(TIMEOUT_SECONDS * 1000), **options)
        self._values: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Raises TopicUnavailableError."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._consumer.start()
                await self._producer.start()
                self._consumer.assign([self._partition])
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, (KafkaError, OSError)):
                raise TopicUnavailableError(f"Kafka does not answer: {str(error) or type(error).__name__}") from error
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        # aiokafka may let out the cancellation of a fetch here.
        try:
            await self._consumer.stop()
        finally:
            await self._producer.stop()

    async def read(self) -> Mapping[str, bytes]:
        """The value of each key as of now. Raises TopicUnavailableError."""
        async with self._lock:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._catch_up()
            except (KafkaError, OSError) as error:
                raise TopicUnavailableError(
                    f"topic {self._partition.topic} cannot be read: {str(error) or type(error).__name__}"
                ) from error
            return dict(self._values)

    async def _catch_up(self) -> None:
        end = (await self._consumer.end_offsets([self._partition]))[self._partition]
        while await self._consumer.position(self._partition) < end:
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    key = (record.key or b"").decode(errors="replace")
                    if record.value is None:
                        self._values.pop(key, None)
                    else:
                        self._values[key] = record.value

    async def write(self, key: str, value: bytes | None) -> None:
        """Set a value, or remove it with None; returns once Kafka has it. Raises TopicUnavailableError."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._producer.send_and_wait(self._partition.topic, value, key.encode(), partition=0)
        except (KafkaError, OSError) as error:
            raise TopicUnavailableError(
                f"topic {self._partition.topic} cannot be written: {str(error) or type(error).__name__}"
            ) from error
