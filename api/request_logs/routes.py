from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.errors import documented
from api.parameters import NoParameters
from api.request_logs.lookup import find_log
from api.request_logs.page import list_logs
from api.request_logs.parameters import LogParameters, StatsParameters
from api.request_logs.schemas import ExplainedLog, LogPage, StatsAnswer
from api.request_logs.stats import answer_stats
from api.security.reading import AppReading

router = APIRouter(tags=["request logs"], responses=documented(400, 401, 403, 500, 503, 504))


@router.get("/v1/request-logs")
async def query_request_logs(parameters: Annotated[LogParameters, Query()], reading: AppReading) -> LogPage:
    """Request logs, newest first unless told otherwise, page by page.

    Rows that arrive while a client pages neither repeat nor hide others.
    """
    return await reading.run(list_logs, parameters)


@router.get("/v1/request-logs/stats")
async def get_request_log_stats(parameters: Annotated[StatsParameters, Query()], reading: AppReading) -> StatsAnswer:
    """Counts, tokens, cost and latency per group: largest first, or by time where the groups are hours or days."""
    return await reading.run(answer_stats, parameters)


# After the statistics: an id may be any text, slashes included.
@router.get("/v1/request-logs/{request_id:path}", responses=documented(404))
async def get_request_log(
    request_id: Annotated[
        str, Path(description="The gateway's id of the request; any text, encoded for a URL.", examples=["req-7f3a"])
    ],
    _: Annotated[NoParameters, Query()],
    reading: AppReading,
) -> ExplainedLog:
    """The newest log of a request id, with headers and bodies, and why it costs what it costs."""
    return await reading.run(find_log, request_id)
