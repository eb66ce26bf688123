from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query

from api import errors
from api.analytics.charts.executor import answer_custom_analytics
from api.analytics.charts.request import CustomAnalyticsQuery
from api.analytics.charts.schemas import CustomAnalyticsAnswer
from api.analytics.errors import documented
from api.analytics.filters.metadata import ANALYTICS_META, AnalyticsMeta
from api.analytics.overview.queries import answer_analytics
from api.analytics.overview.schemas import AnalyticsAnswer
from api.analytics.request import RequestLogQuery, RequestQuery, asks_for_content
from api.parameters import NoParameters
from api.security.access import Permission
from api.security.auth import require
from api.security.reader import AppReader, Reader

router = APIRouter(tags=["request analytics"])


@router.get("/v1/analytics/meta", responses=errors.documented(400, 401, 403, 500))
def get_analytics_meta(_: Annotated[NoParameters, Query()]) -> AnalyticsMeta:
    """What request analytics can filter, group and measure."""
    return ANALYTICS_META


def _check_content(query: RequestQuery, reader: Reader, groups: Iterable[str] = ()) -> None:
    if asks_for_content(query, groups):
        require(reader.caller, Permission.CONTENT)


@router.post("/api/public/v2/requests/analytics", responses=documented(400, 401, 403, 413, 422, 500, 503, 504))
def request_analytics(
    query: RequestLogQuery, _: Annotated[NoParameters, Query()], reader: AppReader
) -> AnalyticsAnswer:
    """An overview of the requests that the filter leaves: totals, over time, by model, provider, prompt and more."""
    _check_content(query, reader)
    return answer_analytics(reader, query)


@router.post(
    "/api/public/v2/requests/analytics/custom-analytics",
    responses=documented(400, 401, 403, 413, 422, 500, 503, 504),
)
def custom_analytics(
    query: CustomAnalyticsQuery, _: Annotated[NoParameters, Query()], reader: AppReader
) -> CustomAnalyticsAnswer:
    """Charts over the requests that the filter leaves, in the order they are asked for."""
    _check_content(query, reader, query.group_fields)
    return answer_custom_analytics(reader, query)
