"""Putting request events on Kafka from a gateway.

Events are batched here, per partition, and each batch is handed to aiokafka whole: that is five times cheaper
than its `send`, which hashes, awaits and keeps a future for every event.
"""

import asyncio
import contextlib
import itertools
import sys
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError
from aiokafka.producer.message_accumulator import BatchBuilder

from router_insights.emitter.contract import REQUEST_EVENTS_TOPIC
from router_insights.emitter.event import RequestEvent, encode
from router_insights.errors import EventTooLargeError, KafkaUnavailableError

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

Started = TypeVar("Started", bound="EventEmitter")
# Long enough to gather a batch under load, too short to notice.
LINGER_SECONDS = 0.005
RETRY_SECONDS = 0.2
# Before compression; a larger event travels alone.
MAX_BATCH_BYTES = 256 * 1024
# How long a connection may take to close when Kafka is unavailable.
CLOSE_SECONDS = 2.0
Headers = list[tuple[str, bytes]]
NO_ROOM = "the buffer was full of events that wait for acknowledgement"


@dataclass(eq=False)
class _Batch:
    """Events of one partition; `settled` is None once acknowledged, or the reason why they failed."""

    builder: BatchBuilder
    opened_at: float
    settled: asyncio.Future[str | None]
    event_count: int = 0
    byte_count: int = 0
    # Keys of events whose failure no caller waits for: the next call reports it.
    unwatched_keys: list[bytes | None] = field(default_factory=list)

    def add(self, key: bytes | None, value: bytes, headers: Headers) -> bool:
        """False when the batch is full or in flight."""
        if self.builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
            return False
        self.event_count += 1
        self.byte_count += len(value)
        return True


class EventEmitter:
    """Sends request events to `topic` of the Kafka at `bootstrap_servers` ("host:port,host:port").

    Use it as `async with EventEmitter(...) as emitter`, in one event loop. `emit` returns once the event is in
    a buffer of at most `max_pending` events; it waits for room when that is full, or when `max_pending_bytes`
    are in it. Once it is an event's turn, Kafka has `delivery_timeout_seconds` to acknowledge it for all in-sync
    replicas, or it has failed. A failed event is dropped, never silently: the next `emit`, `flush` or `close`
    raises KafkaUnavailableError, which counts and names what failed since the last such error.

    Events of the same key keep their order. With `enable_idempotence` no retry stores an event twice; a broker
    that cannot do that (the embedded one) needs False. `client_options` go to aiokafka (`security_protocol`,
    `sasl_mechanism`, `ssl_context`, ...).
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        topic: str = REQUEST_EVENTS_TOPIC,
        enable_idempotence: bool = True,
        compression: str | None = "lz4",
        max_pending: int = 10_000,
        max_pending_bytes: int = 64 * 1024 * 1024,
        max_event_bytes: int = 1_000_000,
        delivery_timeout_seconds: float = 30.0,
        **client_options: Any,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topic = topic
        self.max_event_bytes = max_event_bytes
        self._enable_idempotence = enable_idempotence
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._producer_options = {
            "bootstrap_servers": bootstrap_servers,
            "enable_idempotence": enable_idempotence,
            "acks": "all",
            "compression_type": compression,
            "max_batch_size": MAX_BATCH_BYTES,
            "request_timeout_ms": int(delivery_timeout_seconds * 1000),
            **client_options,
        }
        self._producer: AIOKafkaProducer = None
        self._is_connected = False
        self._partitions: list[int] = []
        self._keyless_turn = itertools.count()
        # Per partition, oldest first; the first may be on its way, the last takes events.
        self._queues: defaultdict[int, deque[_Batch]] = defaultdict(deque)
        self._pending = 0
        self._pending_bytes = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._failed_keys: list[bytes | None] = []
        self._first_reason = ""
        self._sender: asyncio.Task[None] | None = None
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._is_broken = False
        self._is_closed = False

    @property
    def pending(self) -> int:
        """Events taken and not yet acknowledged."""
        return self._pending

    async def start(self) -> None:
        """Connect. Raises KafkaUnavailableError when Kafka does not answer or has no such topic."""
        if self._sender is None:
            await self._connect()
            self._sender = asyncio.create_task(self._send_for_ever())

    async def emit(self, event: RequestEvent | Mapping[str, Any]) -> None:
        """Take one event; its key is its request_id.

        Raises InvalidEventError for a mapping that is not a valid event, EventTooLargeError, and
        KafkaUnavailableError when no room came free in time or earlier events have failed. Whatever it
        raises, this event was not taken.
        """
        await self.emit_raw(*encode(event))

    async def emit_raw(self, key: bytes | None, value: bytes) -> None:
        """Take one event that is encoded already. Raises as `emit` does, but checks nothing except the size."""
        self.check_size(key, value)
        self._raise_failures()
        if not await self._wait_for_room():
            raise self._failure([key], NO_ROOM)
        self._append(key, value, []).unwatched_keys.append(key)

    async def deliver(
        self, records: Sequence[tuple[bytes | None, bytes]], headers: Callable[[int], Headers] = lambda number: []
    ) -> None:
        """Send encoded events (key, value) and wait until Kafka has acknowledged every one of them.

        `headers` gives those of each record by its number in `records`.

        Raises EventTooLargeError before anything is sent, and KafkaUnavailableError that counts and names
        those of `records` that failed; the others are in Kafka.
        """
        for key, value in records:
            self.check_size(key, value)
        batches = []
        for number, (key, value) in enumerate(records):
            if not await self._wait_for_room():
                break
            batches.append(self._append(key, value, headers(number)))
        if batches:
            await asyncio.wait({batch.settled for batch in batches})
        reasons = [batch.settled.result() for batch in batches]
        reasons += [NO_ROOM] * (len(records) - len(batches))
        failed = [key for (key, _), reason in zip(records, reasons, strict=True) if reason]
        if failed:
            raise self._failure(failed, next(filter(None, reasons)))

    async def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until everything taken so far is acknowledged.

        Raises KafkaUnavailableError for events that failed, or when `timeout_seconds` (None: as long as it
        takes, which the delivery timeout bounds) pass first; then what is left is still being tried.
        """
        left = await self._wait_for_settled(timeout_seconds)
        self._raise_failures()
        if left:
            raise KafkaUnavailableError(
                f"Kafka at {self.bootstrap_servers} has not acknowledged {left} events"
                f" within {timeout_seconds:g} s; they are still being tried"
            )

    async def close(self) -> None:
        """Flush and disconnect. May be repeated.

        Raises KafkaUnavailableError that counts and names what failed since the last such error, and what
        Kafka did not acknowledge within the delivery timeout.
        """
        if self._sender is None or self._is_closed:
            return
        self._is_closed = True
        self._room.set()
        try:
            await self._wait_for_settled(self._delivery_timeout_seconds)
        finally:
            await self._stop()
        self._raise_failures()

    async def _stop(self) -> None:
        tasks = [task for task in (self._sender, *self._in_flight.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._disconnect()
        for queue in self._queues.values():
            self._fail(queue, asyncio.get_running_loop().time(), "the emitter was closed")

    async def __aenter__(self: Started) -> Started:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def check_size(self, key: bytes | None, value: bytes) -> None:
        """Raises EventTooLargeError for an event that `emit_raw` would refuse."""
        size = len(key or b"") + len(value)
        if size > self.max_event_bytes:
            raise EventTooLargeError(f"the event has {size:,} bytes, more than the {self.max_event_bytes:,} allowed")

    async def _wait_for_room(self) -> bool:
        """False when none came free in time."""
        self._check_is_open()
        if not self._is_full():
            return True
        try:
            async with timeout(self._delivery_timeout_seconds):
                while self._is_full():
                    self._room.clear()
                    await self._room.wait()
                    self._check_is_open()
        except asyncio.TimeoutError:
            return False
        return True

    def _is_full(self) -> bool:
        return self._pending >= self._max_pending or self._pending_bytes >= self._max_pending_bytes

    def _check_is_open(self) -> None:
        if self._sender is None or self._is_closed:
            raise RuntimeError(f"the event emitter is {'closed' if self._is_closed else 'not started'}")

    def _partition_of(self, key: bytes | None) -> int:
        # Kafka's Java clients hash with murmur2, which in Python costs more than all the rest; librdkafka uses
        # CRC-32 as well, and one key only ever comes from one gateway.
        number = next(self._keyless_turn) if key is None else zlib.crc32(key)
        return self._partitions[number % len(self._partitions)]

    def _append(self, key: bytes | None, value: bytes, headers: Headers) -> _Batch:
        queue = self._queues[self._partition_of(key)]
        if not queue or not queue[-1].add(key, value, headers):
            loop = asyncio.get_running_loop()
            queue.append(_Batch(self._producer.create_batch(), loop.time(), loop.create_future()))
            queue[-1].add(key, value, headers)
        self._pending += 1
        self._pending_bytes += len(value)
        self._work.set()
        return queue[-1]

    async def _send_for_ever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            await asyncio.sleep(LINGER_SECONDS)
            if self._is_broken and not self._in_flight:
                await self._reconnect()
            for partition, queue in self._queues.items():
                if queue and not self._is_broken and partition not in self._in_flight:
                    self._in_flight[partition] = asyncio.create_task(self._send(partition, queue))

    async def _send(self, partition: int, queue: deque[_Batch]) -> None:
        """Send the first batch of a partition's queue, to its acknowledgement or failure."""
        began = asyncio.get_running_loop().time()
        queue[0].builder.close()
        try:
            async with timeout(self._delivery_timeout_seconds):
                await (await self._producer.send_batch(queue[0].builder, self.topic, partition=partition))
            self._settle(queue)
        except asyncio.TimeoutError:
            self._is_broken = True
            self._fail(queue, began, f"no acknowledgement within {self._delivery_timeout_seconds:g} s")
        except Exception as error:  # whatever it is, the caller gets to know it
            # The refused batch has used up sequence numbers that Kafka never saw: an idempotent producer is
            # refused ever after, so it has to be replaced.
            self._is_broken = True
            self._settle(queue, _describe(error))
        finally:
            del self._in_flight[partition]
            self._work.set()

    def _settle(self, queue: deque[_Batch], reason: str | None = None) -> None:
        """Take the first batch off: acknowledged, or failed for a reason."""
        batch = queue.popleft()
        self._pending -= batch.event_count
        self._pending_bytes -= batch.byte_count
        if reason is not None and batch.unwatched_keys:
            self._failed_keys += batch.unwatched_keys
            self._first_reason = self._first_reason or reason
        batch.settled.set_result(reason)
        self._room.set()

    def _fail(self, queue: deque[_Batch], moment: float, reason: str) -> None:
        """Fail the batches that were opened up to a moment of the loop's clock."""
        while queue and queue[0].opened_at <= moment:
            self._settle(queue, reason)

    async def _wait_for_settled(self, timeout_seconds: float | None) -> int:
        """Wait for what is in the buffer now; how many of these events are left after the timeout."""
        batches = [batch for queue in self._queues.values() for batch in queue]
        if batches:
            await asyncio.wait([batch.settled for batch in batches], timeout=timeout_seconds)
        return sum(batch.event_count for batch in batches if not batch.settled.done())

    def _failure(self, keys: list[bytes | None], reason: str) -> KafkaUnavailableError:
        count = f"{len(keys)} event{'s' if len(keys) != 1 else ''}"
        return KafkaUnavailableError(
            f"{count} did not reach Kafka at {self.bootstrap_servers}; first reason: {reason}", keys
        )

    def _raise_failures(self) -> None:
        if self._failed_keys:
            error = self._failure(self._failed_keys, self._first_reason)
            self._failed_keys, self._first_reason = [], ""
            raise error

    async def _connect(self) -> None:
        producer = AIOKafkaProducer(**self._producer_options)
        problem = "does not answer"
        try:
            async with timeout(self._delivery_timeout_seconds):
                await producer.start()
                problem = f"has no topic {self.topic}"
                self._partitions = sorted(await producer.partitions_for(self.topic))
            self._producer, self._is_connected = producer, True
        except (KafkaError, OSError, asyncio.TimeoutError) as error:
            sentence = f"Kafka at {self.bootstrap_servers} {problem}: {_describe(error)}"
            if isinstance(error, UnknownError) and self._enable_idempotence:
                sentence += "; a broker without idempotent producers needs enable_idempotence=False"
            raise KafkaUnavailableError(sentence) from error
        finally:
            if not self._is_connected:
                await producer.stop()

    async def _reconnect(self) -> None:
        """Replace the producer. What waits for that longer than the delivery timeout has failed."""
        await self._disconnect()
        while not self._is_connected:
            try:
                await self._connect()
            except KafkaUnavailableError as error:
                moment = asyncio.get_running_loop().time() - self._delivery_timeout_seconds
                for queue in self._queues.values():
                    self._fail(queue, moment, str(error))
                await asyncio.sleep(RETRY_SECONDS)
        self._is_broken = False

    async def _disconnect(self) -> None:
        """Close the connection and forget the batches in flight.

        By hand, because aiokafka's `stop` waits for ever for batches that it cannot deliver.
        """
        if not self._is_connected:
            return
        self._is_connected = False
        self._producer._closed = True
        for close in (self._producer._sender.close, self._producer.client.close):
            with contextlib.suppress(asyncio.TimeoutError, KafkaError):
                async with timeout(CLOSE_SECONDS):
                    await close()


def _describe(error: Exception) -> str:
    name, text = type(error).__name__, str(error)
    return text if text.startswith(name) else f"{name}: {text}" if text else name
