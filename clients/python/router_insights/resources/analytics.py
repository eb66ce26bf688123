"""`client.analytics`: charts, the overview, search, suggestions. docs/analytics.md has the language of filters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import msgspec

from router_insights.answers.analytics import AnalyticsFields, ChartAnswer, FoundRequest, SearchPage, Suggestions
from router_insights.answers.overview import Overview
from router_insights.call import Call
from router_insights.connection import AsyncConnection, Connection
from router_insights.request_fields import fields_of, parameters_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

PREFIX = "/api/public/v2/requests"
ITERATED_PER_PAGE = 25

FilterGroup = Mapping[str, Any]

# A Decimal in a filter is compared with numbers.
ENCODER = msgspec.json.Encoder(decimal_format="number")


class ChartQuery(TypedDict, total=False):
    """The body of custom analytics. Charts are mappings as in docs/analytics.md."""

    customCharts: list[dict[str, Any]]
    filter_group: FilterGroup | None
    q: str | None
    sort_by: str | None
    sort_order: Literal["asc", "desc"] | None
    timezone: str | None


class OverviewQuery(TypedDict, total=False):
    """The body of the overview."""

    filter_group: FilterGroup | None
    q: str | None
    sort_by: str | None
    sort_order: Literal["asc", "desc"] | None
    metadata_cost_breakdown_key: str | None


class SearchQuery(TypedDict, total=False):
    """The body of a search: a filter, the words `q`, the order (`sort_by` and `sort_order` together), the page."""

    filter_group: FilterGroup | None
    q: str | None
    sort_by: str | None
    sort_order: Literal["asc", "desc"] | None
    page: int | None
    per_page: int | None
    include_prompt_name: bool | None
    metadata_cost_breakdown_key: str | None


class SuggestionQuery(TypedDict, total=False):
    """Values of which field, that begin with what. `metadata_key` is needed with the fields `*_values`."""

    field: str
    prefix: str | None
    metadata_key: str | None
    prompt_id: int | None
    filter_group: FilterGroup | None


def _charts(request: Any, query: Mapping[str, Any]) -> Call[ChartAnswer]:
    return _post("/analytics/custom-analytics", ChartAnswer, fields_of(request, query))


def _overview(request: Any, query: Mapping[str, Any]) -> Call[Overview]:
    return _post("/analytics", Overview, fields_of(request, query))


def _search(request: Any, query: Mapping[str, Any]) -> Call[SearchPage]:
    return _post("/search", SearchPage, fields_of(request, query))


def _post(path: str, answer: type[Any], body: Mapping[str, Any]) -> Call[Any]:
    return Call("POST", PREFIX + path, answer, body=ENCODER.encode(body))


def _suggestions(query: Mapping[str, Any]) -> Call[Suggestions]:
    group = query.get("filter_group")
    if group is not None:
        query = {**query, "filter_group": ENCODER.encode(group).decode()}
    return Call("GET", PREFIX + "/suggestions", Suggestions, parameters_of(None, query))


_FIELDS = Call("GET", "/v1/analytics/meta", AnalyticsFields)


class Analytics:
    """A query is a mapping, the body as in docs/analytics.md; or its properties are keyword arguments."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def custom_analytics(self, query: Any = None, /, **properties: Unpack[ChartQuery]) -> ChartAnswer:
        """Charts over the requests that a filter leaves, in the order they are asked for."""
        return self._connection.send(_charts(query, properties))

    def overview(self, query: Any = None, /, **properties: Unpack[OverviewQuery]) -> Overview:
        """Totals of the requests that a filter leaves, also over time, by model, provider, prompt and more."""
        return self._connection.send(_overview(query, properties))

    def search_requests(self, query: Any = None, /, **properties: Unpack[SearchQuery]) -> SearchPage:
        """A page of the requests that a filter leaves and whose texts hold the words of `q`."""
        return self._connection.send(_search(query, properties))

    def iter_search(self, query: Any = None, /, **properties: Unpack[SearchQuery]) -> Iterator[FoundRequest]:
        """What is found, page by page. The API may limit searches to a few a minute; this waits for it."""
        wanted = {"per_page": ITERATED_PER_PAGE, **fields_of(query, properties)}
        while True:
            page = self._connection.send(_search(wanted, {}))
            yield from page.items
            if not page.has_next:
                return
            wanted["page"] = page.page + 1

    def suggest_values(self, **query: Unpack[SuggestionQuery]) -> Suggestions:
        """Values of a field that begin with a prefix, the most frequent first."""
        return self._connection.send(_suggestions(query))

    def get_fields(self) -> AnalyticsFields:
        """What can be filtered, grouped and measured."""
        return self._connection.send(_FIELDS)


class AsyncAnalytics:
    """`Analytics` for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def custom_analytics(self, query: Any = None, /, **properties: Unpack[ChartQuery]) -> ChartAnswer:
        """Charts over the requests that a filter leaves, in the order they are asked for."""
        return await self._connection.send(_charts(query, properties))

    async def overview(self, query: Any = None, /, **properties: Unpack[OverviewQuery]) -> Overview:
        """Totals of the requests that a filter leaves, also over time, by model, provider, prompt and more."""
        return await self._connection.send(_overview(query, properties))

    async def search_requests(self, query: Any = None, /, **properties: Unpack[SearchQuery]) -> SearchPage:
        """A page of the requests that a filter leaves and whose texts hold the words of `q`."""
        return await self._connection.send(_search(query, properties))

    async def iter_search(self, query: Any = None, /, **properties: Unpack[SearchQuery]) -> AsyncIterator[FoundRequest]:
        """What is found, page by page. The API may limit searches to a few a minute; this waits for it."""
        wanted = {"per_page": ITERATED_PER_PAGE, **fields_of(query, properties)}
        while True:
            page = await self._connection.send(_search(wanted, {}))
            for item in page.items:
                yield item
            if not page.has_next:
                return
            wanted["page"] = page.page + 1

    async def suggest_values(self, **query: Unpack[SuggestionQuery]) -> Suggestions:
        """Values of a field that begin with a prefix, the most frequent first."""
        return await self._connection.send(_suggestions(query))

    async def get_fields(self) -> AnalyticsFields:
        """What can be filtered, grouped and measured."""
        return await self._connection.send(_FIELDS)
