from typing import Annotated

from fastapi import APIRouter, Query

from api.errors import documented
from api.models import StatsAnswer
from api.parameters import StatsParameters
from api.reader import AppReader
from api.stats import answer_stats

router = APIRouter(tags=["request logs"], responses=documented(400, 401, 403, 500, 503, 504))


@router.get("/v1/request-logs/stats")
def get_request_log_stats(parameters: Annotated[StatsParameters, Query()], reader: AppReader) -> StatsAnswer:
    """Counts, tokens, cost and latency per group: largest first, or by time where the groups are hours or days."""
    return answer_stats(reader, parameters)
