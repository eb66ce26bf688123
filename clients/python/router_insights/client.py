"""The clients: where the API is, and what it can be asked."""

from types import TracebackType
from typing import TypeVar

from router_insights.connection import AsyncConnection, Connection, Endpoint
from router_insights.resources.analytics import Analytics, AsyncAnalytics
from router_insights.resources.budgets import Alerts, AsyncAlerts, AsyncBudgets, Budgets
from router_insights.resources.events import AsyncEvents, Events
from router_insights.resources.live_usage import AsyncLive, Live
from router_insights.resources.request_logs import AsyncRequestLogs, RequestLogs

Self = TypeVar("Self", bound="Client")
AsyncSelf = TypeVar("AsyncSelf", bound="AsyncClient")

TIMEOUT_SECONDS = 60.0
MAX_RETRIES = 3


class Client:
    """Asks the API at `base_url` with an `api_key`; without them INSIGHTS_API_URL and INSIGHTS_API_KEY say.

    An answer must begin within `timeout_seconds`. After 429 and 503 the question is asked again, `max_retries` times
    at most: after as long as the API says, but never after more than a minute. Any number of threads may share one.
    Use it as `with Client() as client`, or call `close`.

    Every method raises ApiError (its subclasses say which), ApiConnectionError that names the address, and
    UnexpectedAnswerError. The constructor raises ValueError that names the argument.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        self._endpoint = Endpoint.of(base_url, api_key, timeout_seconds, max_retries)
        self._connection = Connection(self._endpoint)
        self.request_logs = RequestLogs(self._connection)
        self.analytics = Analytics(self._connection)
        self.budgets = Budgets(self._connection)
        self.alerts = Alerts(self._connection)
        self.live_usage = Live(self._connection)
        self.events = Events(self._connection)

    def __repr__(self) -> str:
        return f"Client({self._endpoint.base_url!r})"

    def close(self) -> None:
        """Close the connections. May be repeated."""
        self._connection.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same arguments, methods and errors; its methods are awaited, what it iterates over is
    iterated with `async for`. Use it in one event loop, as `async with AsyncClient() as client`."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        self._endpoint = Endpoint.of(base_url, api_key, timeout_seconds, max_retries)
        self._connection = AsyncConnection(self._endpoint)
        self.request_logs = AsyncRequestLogs(self._connection)
        self.analytics = AsyncAnalytics(self._connection)
        self.budgets = AsyncBudgets(self._connection)
        self.alerts = AsyncAlerts(self._connection)
        self.live_usage = AsyncLive(self._connection)
        self.events = AsyncEvents(self._connection)

    def __repr__(self) -> str:
        return f"AsyncClient({self._endpoint.base_url!r})"

    async def close(self) -> None:
        """Close the connections. May be repeated."""
        await self._connection.close()

    async def __aenter__(self: AsyncSelf) -> AsyncSelf:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
