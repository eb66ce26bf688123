"""`POST /v1/events` joined to Kafka; the API itself knows no Kafka."""

import asyncio
from typing import Any

from api.errors import ErrorDetail
from api.gate import EventsUnavailableError, InvalidEventsError
from ingest import gate
from ingest.emitter import EventEmitter
from ingest.topics import KafkaUnavailableError


class KafkaGate:
    """The ingest side's gate in the API's terms. Use it in one event loop.

    It connects with the first body, so that an API that only reads does not depend on Kafka.
    """

    def __init__(self, emitter: EventEmitter) -> None:
        self._emitter = emitter
        self._gate = gate.EventGate(emitter)
        self._connecting = asyncio.Lock()

    async def accept(self, body: bytes, is_ndjson: bool) -> int:
        """Send the events of the body; returns how many once Kafka has all of them.

        Raises InvalidEventsError before anything is sent, EventsUnavailableError when Kafka is away.
        """
        try:
            async with self._connecting:
                await self._emitter.start()
            return await self._gate.accept(body, is_ndjson)
        except gate.InvalidEventsError as error:
            details = [
                ErrorDetail(field=problem.field, message=problem.message, line=problem.line if is_ndjson else None)
                for problem in error.problems
            ]
            raise InvalidEventsError(details) from error
        except KafkaUnavailableError as error:
            raise EventsUnavailableError(str(error)) from error

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one event."""
        return self._gate.schema()

    async def close(self) -> None:
        await self._emitter.close()
