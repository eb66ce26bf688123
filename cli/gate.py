"""`POST /v1/events` joined to Kafka; the API itself knows no Kafka."""

import asyncio
from typing import Any

from pydantic import ValidationError

from api.errors import ErrorDetail
from api.gate import EventsUnavailableError, InvalidEventsError
from cli.generator import Record
from ingest.emitter import EventEmitter, EventTooLargeError
from ingest.events import RequestEvent
from ingest.topics import KafkaUnavailableError

# Enough to see what is wrong with a body.
MOST_PROBLEMS = 100


def _problems(error: ValidationError, line: int | None) -> list[ErrorDetail]:
    return [
        ErrorDetail(field=".".join(str(part) for part in item["loc"]), message=item["msg"], line=line)
        for item in error.errors(include_url=False, include_input=False)
    ]


class KafkaGate:
    """Takes whole bodies: every event is checked before the first is sent. Use it in one event loop.

    It connects with the first body, so that an API that only reads does not depend on Kafka.
    """

    def __init__(self, emitter: EventEmitter) -> None:
        self._emitter = emitter
        self._connecting = asyncio.Lock()

    async def accept(self, body: bytes, is_ndjson: bool) -> int:
        """Send the events of the body; returns how many once Kafka has all of them.

        Raises InvalidEventsError before anything is sent, EventsUnavailableError when Kafka is away.
        """
        # A large body takes a while to check; the loop has other requests to serve.
        records = await asyncio.to_thread(self._check, body, is_ndjson)
        try:
            async with self._connecting:
                await self._emitter.start()
            await self._emitter.deliver(records)
        except KafkaUnavailableError as error:
            raise EventsUnavailableError(str(error)) from error
        return len(records)

    def _check(self, body: bytes, is_ndjson: bool) -> list[Record]:
        records: list[Record] = []
        problems: list[ErrorDetail] = []
        for number, line in enumerate(body.split(b"\n") if is_ndjson else [body], start=1):
            if is_ndjson and not line.strip():
                continue
            try:
                event = RequestEvent.model_validate_json(line)
                self._emitter.check_size(event.request_id.encode(), line)
                records.append((event.request_id.encode(), line))
            except ValidationError as error:
                problems += _problems(error, number if is_ndjson else None)
            except EventTooLargeError as error:
                problems.append(ErrorDetail(field="", message=str(error), line=number if is_ndjson else None))
        if not records and not problems:
            problems.append(ErrorDetail(field="", message="the body holds no event"))
        if problems:
            raise InvalidEventsError(problems[:MOST_PROBLEMS])
        return records

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one event."""
        return RequestEvent.model_json_schema()

    async def close(self) -> None:
        await self._emitter.close()
