from typing import Annotated

from fastapi import APIRouter, Query

from api import errors
from api.access import Right
from api.auth import require
from api.charts.answer import CustomAnalyticsAnswer
from api.charts.run import answer_custom_analytics
from api.charts.spec import CustomAnalyticsQuery
from api.meta import ANALYTICS_META, AnalyticsMeta
from api.parameters import NoParameters
from api.reader import AppReader
from api.v2.errors import documented
from api.v2.query import asks_for_content

router = APIRouter(tags=["request analytics"])


@router.get("/v1/analytics/meta", responses=errors.documented(400, 401, 403, 500))
def get_analytics_meta(_: Annotated[NoParameters, Query()]) -> AnalyticsMeta:
    """What request analytics can filter, group and measure."""
    return ANALYTICS_META


@router.post(
    "/api/public/v2/requests/analytics/custom-analytics",
    responses=documented(400, 401, 403, 413, 422, 500, 503, 504),
)
def custom_analytics(
    query: CustomAnalyticsQuery, _: Annotated[NoParameters, Query()], reader: AppReader
) -> CustomAnalyticsAnswer:
    """Charts over the requests that the filter leaves, in the order they are asked for."""
    if asks_for_content(query):
        require(reader.caller, Right.CONTENT)
    return answer_custom_analytics(reader, query)
