"""`POST /v1/events` joined to Kafka; the API itself knows no Kafka."""

import asyncio
from typing import Any

from api.errors import ErrorDetail
from api.gate import EventsUnavailableError, InvalidEventsError
from ingest import gate
from ingest.emitter import EventEmitter
from ingest.topics import KafkaUnavailableError


class KafkaGate:
    """What the API asks of an event gate. Use it in one event loop.

    It connects with the first events, so that an API which mostly reads does not depend on Kafka.
    """

    def __init__(self, emitter: EventEmitter) -> None:
        self._emitter = emitter
        self._events = gate.EventGate(emitter)
        self._connecting = asyncio.Lock()

    async def accept(self, body: bytes, is_ndjson: bool) -> int:
        """See `api.gate.EventGate`."""
        try:
            async with self._connecting:
                await self._emitter.start()
            return await self._events.accept(body, is_ndjson)
        except gate.InvalidEventsError as error:
            problems = (
                ErrorDetail(field=problem.field, message=problem.message, line=problem.line if is_ndjson else None)
                for problem in error.problems
            )
            raise InvalidEventsError(list(problems)) from error
        except KafkaUnavailableError as error:
            raise EventsUnavailableError(str(error)) from error

    def schema(self) -> dict[str, Any]:
        return self._events.schema()

    async def close(self) -> None:
        """Raises KafkaUnavailableError for events that were taken and did not reach Kafka."""
        await self._emitter.close()
