"""What a tool is given: the caller's reader, and what else it may ask."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from fastapi import Request

from aggregator.times import Span
from api.analytics.request import RequestQuery
from api.analytics.routes import check_content, count_words
from api.budgets.store import BudgetStore
from api.load.call import CallOverError
from api.mcp.price_list import PriceList
from api.request_logs.page import list_logs
from api.request_logs.parameters import LogParameters
from api.security.rate_limits import RateLimits
from api.security.reader import Reader
from api.wire_types import rfc3339

T = TypeVar("T")


@dataclass(frozen=True)
class ToolContext:
    """One call of a tool, by one caller."""

    request: Request
    reader: Reader
    now: datetime
    loop: asyncio.AbstractEventLoop

    def wait_for(self, answering: Coroutine[Any, Any, T]) -> T:
        """What runs on the event loop, from the thread of a tool, no longer than the call may take."""
        try:
            return asyncio.run_coroutine_threadsafe(answering, self.loop).result(self.reader.call.remaining_seconds())
        except TimeoutError:
            raise CallOverError from None

    @property
    def budget_store(self) -> BudgetStore | None:
        store: BudgetStore | None = self.request.app.state.budget_store
        return store

    @property
    def price_list(self) -> PriceList | None:
        prices: PriceList | None = self.request.app.state.price_list
        return prices

    def admit(self, query: RequestQuery, groups: Iterable[str] = ()) -> None:
        """What the REST routes of request analytics check. Raises ApiError 403 for content that the caller may not ask
        about, 429 for too many searches for words."""
        check_content(query, self.reader.caller, groups)
        count_words(self.request, query, self.reader.caller)

    def count(self, endpoint: str) -> None:
        """Raises ApiError 429 when the caller has used up its requests to this endpoint."""
        limits: RateLimits = self.request.app.state.rate_limits
        limits.count_endpoint(endpoint, self.reader.caller.name)

    def freshness(self) -> dict[str, Any]:
        """When the newest request that the caller may see started, and when it was stored; nulls without any."""
        newest = list_logs(self.reader, LogParameters(page_size=1)).logs
        return {
            "asked_at": rfc3339(self.now),
            "newest_request": rfc3339(newest[0].timestamp) if newest else None,
            "newest_stored_at": rfc3339(newest[0].created_at) if newest else None,
        }


def written_span(span: Span) -> dict[str, str]:
    """Its `start` and `end`, as far as it has them."""
    return {name: rfc3339(moment) for name, moment in (("start", span.start), ("end", span.end)) if moment}


@dataclass(frozen=True)
class ToolAnswer:
    """`content` and how it is to be read: how exact it is, of which period (None: of all time) in which time zone.

    `console` is the path of the console's page that shows the same.
    """

    content: dict[str, Any]
    console: str
    exactness: str = "exact"
    span: Span | None = None
    timezone: str = "UTC"
    notes: list[str] = field(default_factory=list)
