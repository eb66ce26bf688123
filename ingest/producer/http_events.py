"""Events that come in over HTTP: judged one by one, produced all together."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ingest.events import RequestEvent
from ingest.producer.emitter import EventEmitter, EventTooLargeError
from ingest.transform.decoder import field_path
from ingest.transform.surrogates import without_lone_surrogates

# Enough to see what is wrong with a body; the rest is likely the same again.
MAX_PROBLEMS = 100


@dataclass(frozen=True)
class EventProblem:
    """What is wrong where: the line (from 1), the field's path (`tags[1]`, empty for the whole event), a sentence."""

    line: int
    field: str
    message: str


class InvalidEventsError(Exception):
    """Some of a body's events are not valid, so none was taken. `problems` names the first MAX_PROBLEMS."""

    def __init__(self, problems: list[EventProblem]) -> None:
        first = problems[0]
        super().__init__(f"line {first.line}: {first.field or 'the event'}: {first.message}")
        self.problems = problems


class EventGate:
    """Puts the events of a body on Kafka through `emitter`, which stays the caller's to start and close."""

    def __init__(self, emitter: EventEmitter) -> None:
        self._emitter = emitter

    async def accept(self, body: bytes, is_ndjson: bool) -> int:
        """Take all events of a body or none: one JSON object, or with `is_ndjson` one a line, blank lines ignored.

        Returns how many once Kafka has acknowledged every one of them; they are sent as they came. Raises
        InvalidEventsError before anything is sent, a body without any event included, and
        KafkaUnavailableError when Kafka did not acknowledge some in time; only then may part of a body be in it.
        """
        # In a thread, because a large body would hold up every other request.
        records = await asyncio.to_thread(self._judge, body, is_ndjson)
        await self._emitter.deliver(records)
        return len(records)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one event."""
        return RequestEvent.model_json_schema()

    def _judge(self, body: bytes, is_ndjson: bool) -> list[tuple[bytes | None, bytes]]:
        """The Kafka records of a body."""
        records: list[tuple[bytes | None, bytes]] = []
        problems: list[EventProblem] = []
        for line, value in _lines(body, is_ndjson):
            try:
                key = RequestEvent.model_validate_json(without_lone_surrogates(value)).request_id.encode()
                self._emitter.check_size(key, value)
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
