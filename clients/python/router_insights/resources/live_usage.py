"""`client.live_usage`: the current minute and the sixty before it, once or every two seconds."""

from collections.abc import AsyncIterator, Iterator
from typing import Literal

from router_insights.answers.live_usage import LiveUsage
from router_insights.call import Call
from router_insights.connection import AsyncConnection, Connection
from router_insights.request_fields import parameters_of

ScopeKind = Literal["total", "model", "user", "api_key", "tag"]


def _call(path: str, scope: ScopeKind, value: str) -> Call[LiveUsage]:
    return Call("GET", path, LiveUsage, parameters_of(None, {"scope": scope, "value": value or None}))


class Live:
    """Usage of everything, or of the model, user, API key or tag that `value` names."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get_live_usage(self, scope: ScopeKind = "total", value: str = "") -> LiveUsage:
        """The current minute and the sixty before it."""
        return self._connection.send(_call("/v1/usage/live", scope, value))

    def stream_live_usage(self, scope: ScopeKind = "total", value: str = "") -> Iterator[LiveUsage]:
        """The same every two seconds, until the API ends the stream, as it does when ClickHouse is away."""
        return self._connection.stream(_call("/v1/usage/live/stream", scope, value))


class AsyncLive:
    """`Live` for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get_live_usage(self, scope: ScopeKind = "total", value: str = "") -> LiveUsage:
        """The current minute and the sixty before it."""
        return await self._connection.send(_call("/v1/usage/live", scope, value))

    def stream_live_usage(self, scope: ScopeKind = "total", value: str = "") -> AsyncIterator[LiveUsage]:
        """The same every two seconds, until the API ends the stream, as it does when ClickHouse is away."""
        return self._connection.stream(_call("/v1/usage/live/stream", scope, value))
