from typing import Annotated

from fastapi import APIRouter, Query

from api import errors
from api.meta import ANALYTICS_META, AnalyticsMeta
from api.parameters import NoParameters

router = APIRouter(tags=["request analytics"])


@router.get("/v1/analytics/meta", responses=errors.documented(400, 401, 403, 500))
def get_analytics_meta(_: Annotated[NoParameters, Query()]) -> AnalyticsMeta:
    """What request analytics can filter, group and measure."""
    return ANALYTICS_META
