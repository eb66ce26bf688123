from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.errors import documented
from api.parameters import NoParameters
from api.request_logs.lookup import find_log
from api.request_logs.page import list_logs
from api.request_logs.parameters import LogParameters, StatsParameters
from api.request_logs.schemas import ExplainedLog, LogPage, StatsAnswer
from api.request_logs.stats import answer_stats
from api.security.reader import AppReader

router = APIRouter(tags=["request logs"], responses=documented(400, 401, 403, 500, 503, 504))


@router.get("/v1/request-logs")
def query_request_logs(parameters: Annotated[LogParameters, Query()], reader: AppReader) -> LogPage:
    """Request logs, newest first unless told otherwise, page by page.

    Rows that arrive while a client pages neither repeat nor hide others.
    """
    return list_logs(reader, parameters)


@router.get("/v1/request-logs/stats")
def get_request_log_stats(parameters: Annotated[StatsParameters, Query()], reader: AppReader) -> StatsAnswer:
    """Counts, tokens, cost and latency per group: largest first, or by time where the groups are hours or days."""
    return answer_stats(reader, parameters)


# After the statistics: an id may be any text, slashes included.
@router.get("/v1/request-logs/{request_id:path}", responses=documented(404))
def get_request_log(
    request_id: Annotated[
        str, Path(description="The gateway's id of the request; any text, encoded for a URL.", examples=["req-7f3a"])
    ],
    _: Annotated[NoParameters, Query()],
    reader: AppReader,
) -> ExplainedLog:
    """The newest log of a request id, with headers and bodies, and why it costs what it costs."""
    return find_log(reader, request_id)
