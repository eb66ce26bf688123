from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Request

from api import errors
from api.analytics.charts.query_runner import answer_custom_analytics
from api.analytics.charts.request import CustomAnalyticsQuery
from api.analytics.charts.schemas import CustomAnalyticsAnswer
from api.analytics.errors import documented
from api.analytics.filters.field_listing import ANALYTICS_META
from api.analytics.filters.schemas import AnalyticsMeta
from api.analytics.overview.answer import answer_analytics
from api.analytics.overview.schemas import AnalyticsAnswer
from api.analytics.request import RequestLogQuery, RequestQuery, asks_for_content
from api.analytics.search.answer import answer_search
from api.analytics.search.request import SearchQuery
from api.analytics.search.schemas import SearchAnswer
from api.analytics.suggestions.parameters import SuggestionParameters
from api.analytics.suggestions.queries import answer_suggestions
from api.analytics.suggestions.schemas import SuggestionAnswer
from api.parameters import NoParameters
from api.security.auth import limited, require
from api.security.permissions import Caller, Permission
from api.security.rate_limits import RateLimits
from api.security.reading import AppReading

router = APIRouter(tags=["request analytics"])


@router.get("/v1/analytics/meta", responses=errors.documented(400, 401, 403, 500))
async def get_analytics_meta(_: Annotated[NoParameters, Query()]) -> AnalyticsMeta:
    """What request analytics can filter, group and measure."""
    return ANALYTICS_META


def check_content(query: RequestQuery, caller: Caller, groups: Iterable[str] = ()) -> None:
    """Raises ApiError 403 for a question about content, and a caller who may not see it."""
    if asks_for_content(query, groups):
        require(caller, Permission.CONTENT)


def count_words(request: Request, query: RequestQuery, caller: Caller) -> None:
    """Words cost the same wherever they are looked for: they count in the limit of searches. Raises ApiError 429."""
    if query.q and not query.q.isspace():
        limits: RateLimits = request.app.state.rate_limits
        limits.count_endpoint("search", caller.name)


@router.post("/api/public/v2/requests/analytics", responses=documented(400, 401, 403, 413, 422, 500, 503, 504))
async def request_analytics(
    request: Request, query: RequestLogQuery, _: Annotated[NoParameters, Query()], reading: AppReading
) -> AnalyticsAnswer:
    """An overview of the requests that the filter leaves: totals, over time, by model, provider, prompt and more."""
    check_content(query, reading.reader.caller)
    count_words(request, query, reading.reader.caller)
    return await reading.run(answer_analytics, query)


@router.post(
    "/api/public/v2/requests/analytics/custom-analytics",
    responses=documented(400, 401, 403, 413, 422, 500, 503, 504),
)
async def custom_analytics(
    request: Request, query: CustomAnalyticsQuery, _: Annotated[NoParameters, Query()], reading: AppReading
) -> CustomAnalyticsAnswer:
    """Charts over the requests that the filter leaves, in the order they are asked for."""
    check_content(query, reading.reader.caller, query.group_fields)
    count_words(request, query, reading.reader.caller)
    return await reading.run(answer_custom_analytics, query)


@router.post(
    "/api/public/v2/requests/search",
    response_model_exclude_unset=True,
    responses=documented(400, 401, 403, 413, 422, 429, 500, 503, 504),
    dependencies=[limited("search")],
)
async def search_requests(query: SearchQuery, _: Annotated[NoParameters, Query()], reading: AppReading) -> SearchAnswer:
    """Requests that the filter leaves and whose texts hold the words of `q`, page by page.

    With words and without `sort_by`, texts that have every word as it is go first, then those with longer words, then
    those with typos; each newest first.
    """
    check_content(query, reading.reader.caller)
    return await reading.run(answer_search, query)


@router.get(
    "/api/public/v2/requests/suggestions",
    responses=documented(400, 401, 403, 422, 429, 500, 503, 504),
    dependencies=[limited("suggestions")],
)
async def suggest_values(parameters: Annotated[SuggestionParameters, Query()], reading: AppReading) -> SuggestionAnswer:
    """Values of a field that begin with a prefix, in any case, the most frequent first.

    Models, providers and statuses of all time; of everything else those of the newest million requests.
    """
    query = parameters.query
    if parameters.asks_for_content or asks_for_content(query):
        require(reading.reader.caller, Permission.CONTENT)
    return await reading.run(answer_suggestions, parameters, query)
