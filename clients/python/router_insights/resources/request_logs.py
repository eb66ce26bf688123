"""`client.request_logs`: logs page by page or one after the other, one log, statistics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import quote

from router_insights.answers.request_logs import ExplainedLog, RequestLog, RequestLogPage, RequestLogStats
from router_insights.call import Call
from router_insights.connection import AsyncConnection, Connection
from router_insights.request_fields import fields_of, parameters_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Logs have bodies: larger pages save little time and take much memory.
ITERATED_PAGE_SIZE = 200


class LogFilters(TypedDict, total=False):
    """Which logs, in which order; docs/api.md. `start_time` is inclusive, `end_time` exclusive; both need a zone."""

    user_id: str | None
    api_key_id: str | None
    model_name: str | None
    status: str | None
    is_error: bool | None
    status_code: int | None
    start_time: datetime | str | None
    end_time: datetime | str | None
    min_duration_ms: int | None
    max_duration_ms: int | None
    page_size: int | None
    page_token: str | None
    order_by: Literal["timestamp", "duration_ms", "input_tokens", "output_tokens"] | None
    order_direction: Literal["desc", "asc"] | None


class StatsFilters(TypedDict, total=False):
    """Which requests are counted, by what, and which metric is `value`; docs/api.md."""

    user_id: str | None
    model_name: str | None
    is_error: bool | None
    start_time: datetime | str | None
    end_time: datetime | str | None
    group_by: Literal["model", "user", "api_key", "status", "hour", "day"] | None
    metric: Literal["count", "tokens", "cost", "latency", "errors"] | None
    timezone: str | None
    limit: int | None


def _query(request: Any, filters: Mapping[str, Any]) -> Call[RequestLogPage]:
    return Call("GET", "/v1/request-logs", RequestLogPage, parameters_of(request, filters))


def _stats(request: Any, filters: Mapping[str, Any]) -> Call[RequestLogStats]:
    return Call("GET", "/v1/request-logs/stats", RequestLogStats, parameters_of(request, filters))


def _get(request: Any, request_id: str | None) -> Call[ExplainedLog]:
    if isinstance(request, str):
        request, request_id = None, request
    wanted = fields_of(request, {} if request_id is None else {"request_id": request_id}).get("request_id", "")
    if wanted in ("", "stats", ".", "..") or set(wanted) & {"\n", "\r"}:
        raise ValueError(f"request_id: no log can be asked for as {wanted!r}; iter_request_logs() finds it")
    return Call("GET", f"/v1/request-logs/{quote(wanted, safe='')}", ExplainedLog)


def _pages(request: Any, filters: Mapping[str, Any]) -> dict[str, Any]:
    return {"page_size": ITERATED_PAGE_SIZE, **fields_of(request, filters)}


class RequestLogs:
    """A request is a message of the proto service or a mapping of the same fields; or its fields are keyword arguments.

    Every method raises TypeError or ValueError for what cannot be asked, and the errors of `Client`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def query_request_logs(self, request: Any = None, /, **filters: Unpack[LogFilters]) -> RequestLogPage:
        """A page of logs, newest first unless `order_by` and `order_direction` say otherwise."""
        return self._connection.send(_query(request, filters))

    def iter_request_logs(self, request: Any = None, /, **filters: Unpack[LogFilters]) -> Iterator[RequestLog]:
        """All logs that match, page by page. Logs that arrive meanwhile neither repeat nor hide others."""
        wanted = _pages(request, filters)
        while True:
            page = self._connection.send(_query(wanted, {}))
            yield from page.logs
            if not page.next_page_token:
                return
            wanted["page_token"] = page.next_page_token

    def get_request_log(self, request: Any = None, /, *, request_id: str | None = None) -> ExplainedLog:
        """The newest log of a request id, and why it costs what it costs. Raises NotFoundError."""
        return self._connection.send(_get(request, request_id))

    def get_request_log_stats(self, request: Any = None, /, **filters: Unpack[StatsFilters]) -> RequestLogStats:
        """Counts, tokens, cost and latency per group: largest first, or by time for hours and days."""
        return self._connection.send(_stats(request, filters))


class AsyncRequestLogs:
    """`RequestLogs` for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def query_request_logs(self, request: Any = None, /, **filters: Unpack[LogFilters]) -> RequestLogPage:
        """A page of logs, newest first unless `order_by` and `order_direction` say otherwise."""
        return await self._connection.send(_query(request, filters))

    async def iter_request_logs(
        self, request: Any = None, /, **filters: Unpack[LogFilters]
    ) -> AsyncIterator[RequestLog]:
        """All logs that match, page by page. Logs that arrive meanwhile neither repeat nor hide others."""
        wanted = _pages(request, filters)
        while True:
            page = await self._connection.send(_query(wanted, {}))
            for log in page.logs:
                yield log
            if not page.next_page_token:
                return
            wanted["page_token"] = page.next_page_token

    async def get_request_log(self, request: Any = None, /, *, request_id: str | None = None) -> ExplainedLog:
        """The newest log of a request id, and why it costs what it costs. Raises NotFoundError."""
        return await self._connection.send(_get(request, request_id))

    async def get_request_log_stats(self, request: Any = None, /, **filters: Unpack[StatsFilters]) -> RequestLogStats:
        """Counts, tokens, cost and latency per group: largest first, or by time for hours and days."""
        return await self._connection.send(_stats(request, filters))
