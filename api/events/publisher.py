"""What the API needs to publish events. The API knows no Kafka; the command line gives it a `KafkaEventPublisher`."""

from typing import Any, Protocol


class EventPublisher(Protocol):
    async def publish(self, body: bytes, is_ndjson: bool) -> int:
        """Check every event of the body, then publish all of them; returns how many once they are safe: in Kafka, or
        stored in ClickHouse.

        `body` is one JSON object, or with `is_ndjson` one per line; a body without any is invalid. Raises
        InvalidEventsError before anything is published, KafkaUnavailableError when Kafka does not take the events, and
        NotStoredError when they are not stored in time. Some may be there then, or later: sending all of them again is
        safe only as far as readers tell repeated request ids apart.
        """
        ...

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of one event."""
        ...
