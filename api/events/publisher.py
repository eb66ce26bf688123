"""What the API asks of whatever takes events in. The API knows no Kafka; the command line plugs the two together."""

from typing import Any, Protocol

from api.errors import ErrorDetail


class InvalidEventsError(Exception):
    """The body was refused and nothing of it was accepted. `problems` name line, field and reason."""

    def __init__(self, problems: list[ErrorDetail]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


class EventsUnavailableError(Exception):
    """Kafka does not take the events right now. Some may be in it: sending all of them again is safe only as
    far as consumers tell repeated request ids apart."""


class EventGate(Protocol):
    async def accept(self, body: bytes, is_ndjson: bool) -> int:
        """Check every event of the body, then produce all of them; returns how many once Kafka has them.

        `body` is one JSON object, or with `is_ndjson` one per line; a body without any is invalid.
        Raises InvalidEventsError before anything was produced, EventsUnavailableError when Kafka is away.
        """
        ...

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one event."""
        ...
