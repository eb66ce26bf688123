"""`POST /v1/events` joined to Kafka; the API itself knows no Kafka."""

import asyncio
from typing import Any

from api.errors import ErrorDetail
from api.events.publisher import EventsUnavailableError, InvalidEventsError
from cli.adapters.emitter import connect
from ingest.events import RequestEvent
from ingest.producer import http_events
from ingest.producer.emitter import EventEmitter
from ingest.topics.create import KafkaUnavailableError


class KafkaGate:
    """What the API asks of an event gate (`api.events.publisher.EventGate`). Use it in one event loop.

    It connects with the first events, so that an API which mostly reads does not depend on Kafka.
    """

    def __init__(self, bootstrap_servers: str, topic: str, **client_options: Any) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._client_options = client_options
        self._connecting = asyncio.Lock()
        self._emitter: EventEmitter | None = None

    async def _connected(self) -> EventEmitter:
        async with self._connecting:
            if self._emitter is None:
                self._emitter = await connect(self._bootstrap_servers, self._topic, **self._client_options)
            return self._emitter

    async def accept(self, body: bytes, is_ndjson: bool) -> int:
        try:
            return await http_events.EventGate(await self._connected()).accept(body, is_ndjson)
        except http_events.InvalidEventsError as error:
            problems = (
                ErrorDetail(field=problem.field, message=problem.message, line=problem.line if is_ndjson else None)
                for problem in error.problems
            )
            raise InvalidEventsError(list(problems)) from error
        except KafkaUnavailableError as error:
            raise EventsUnavailableError(str(error)) from error

    def schema(self) -> dict[str, Any]:
        return RequestEvent.model_json_schema()

    async def close(self) -> None:
        """Raises KafkaUnavailableError for events that were taken and did not reach Kafka."""
        if self._emitter is not None:
            await self._emitter.close()
