"""`client.events`: events over HTTP, for programs that cannot speak Kafka; docs/events.md."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from router_insights.answers.events import Accepted
from router_insights.call import NDJSON, Call
from router_insights.connection import AsyncConnection, Connection
from router_insights.request_fields import rfc3339


def _publish(events: Iterable[Mapping[str, Any]]) -> Call[Accepted]:
    lines = [_line(event) for event in events]
    if not lines:
        raise ValueError("events: there is none")
    # After a 503 some may be in Kafka, and each would be stored, and cost, a second time.
    return Call("POST", "/v1/events", Accepted, body=b"\n".join(lines), content_type=NDJSON, may_repeat=False)


def _line(event: Mapping[str, Any]) -> bytes:
    moment = event.get("timestamp")
    if moment is not None and not isinstance(moment, str | int):
        event = {**event, "timestamp": rfc3339("timestamp", moment)}
    return msgspec.json.encode(event)


class Events:
    """Needs a key that may send events."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def publish_events(self, events: Iterable[Mapping[str, Any]]) -> Accepted:
        """Send events, all of them or none, at most 8 MiB together; returns once they are safe.

        Raises InvalidRequestError that names line and field, and UnavailableError; after that some of them may be there
        all the same, so it is not tried again here.
        """
        return self._connection.send(_publish(events))


class AsyncEvents:
    """`Events` for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def publish_events(self, events: Iterable[Mapping[str, Any]]) -> Accepted:
        """Send events, all of them or none, at most 8 MiB together; returns once they are safe.

        Raises InvalidRequestError that names line and field, and UnavailableError; after that some of them may be there
        all the same, so it is not tried again here.
        """
        return await self._connection.send(_publish(events))
