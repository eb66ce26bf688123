"""Events that come in over HTTP: checked one by one, published all together."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from aggregator.errors import EventProblem, InvalidEventsError
from ingest.producer.connection import connect
from ingest.receipts import Receipts
from ingest.transform.surrogates import without_lone_surrogates
from router_insights.emitter.event import RequestEvent, field_path
from router_insights.emitter.event_emitter import EventEmitter
from router_insights.errors import EventTooLargeError

# Enough to see what is wrong with a body; the rest is likely the same again.
MAX_PROBLEMS = 100


def records_of(
    body: bytes, is_ndjson: bool, check_size: Callable[[bytes, bytes], None]
) -> list[tuple[bytes | None, bytes]]:
    """The Kafka records (key, value) of a body: one JSON object, or with `is_ndjson` one a line, blank lines ignored.

    Values are as they came. `check_size` raises EventTooLargeError. Raises InvalidEventsError that names the first
    MAX_PROBLEMS, also for a body without any event.
    """
    records: list[tuple[bytes | None, bytes]] = []
    problems: list[EventProblem] = []
    for line, value in _lines(body, is_ndjson):
        try:
            key = RequestEvent.model_validate_json(without_lone_surrogates(value)).request_id.encode()
            check_size(key, value)
            records.append((key, value))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            problems += [EventProblem(line, field_path(item["loc"]), item["msg"]) for item in found]
        except EventTooLargeError as error:
            problems.append(EventProblem(line, "", str(error)))
        if len(problems) >= MAX_PROBLEMS:
            break
    if not records and not problems:
        problems.append(EventProblem(1, "", "the body holds no event"))
    if problems:
        raise InvalidEventsError(problems[:MAX_PROBLEMS])
    return records


def _lines(body: bytes, is_ndjson: bool) -> Iterator[tuple[int, bytes]]:
    """(number from 1, text) of every event in a body."""
    for number, line in enumerate(body.split(b"\n") if is_ndjson else [body], start=1):
        if text := line.strip(b" \t\r\n"):
            yield number, text


class KafkaEventPublisher:
    """The `EventPublisher` of the API (api/events/publisher.py). Use it in one event loop.

    It connects with the first events, so that an API which mostly reads does not depend on Kafka. `options` go to
    `EventEmitter`. With `receipts` it waits until the worker of this process has stored the events.
    """

    def __init__(self, bootstrap_servers: str, topic: str, receipts: Receipts | None = None, **options: Any) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._options = options
        self._receipts = receipts
        self._connecting = asyncio.Lock()
        self._emitter: EventEmitter | None = None

    async def _connected(self) -> EventEmitter:
        async with self._connecting:
            if self._emitter is None:
                self._emitter = await connect(self._bootstrap_servers, self._topic, **self._options)
            return self._emitter

    async def publish(self, body: bytes, is_ndjson: bool) -> int:
        """Publish all events of a body or none; returns how many once Kafka has acknowledged every one of them, or
        where `receipts` are given once all are stored.

        Raises InvalidEventsError before anything is sent, KafkaUnavailableError when Kafka did not acknowledge some in
        time, and NotStoredError when they were not stored in time; only then may part of a body be in it.
        """
        emitter = await self._connected()
        # In a thread, because a large body would hold up every other request.
        records = await asyncio.to_thread(records_of, body, is_ndjson, emitter.check_size)
        if self._receipts is None:
            await emitter.deliver(records)
        else:
            with self._receipts.expect(len(records)) as receipt:
                await emitter.deliver(records, receipt.headers)
                await self._receipts.wait(receipt)
        return len(records)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one event."""
        return RequestEvent.model_json_schema()

    async def close(self) -> None:
        """Raises KafkaUnavailableError for events that were accepted and did not reach Kafka."""
        if self._emitter is not None:
            await self._emitter.close()
