"""The methods of the proto services, and what answers each: the functions that answer the REST routes."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from protobuf import Message

from api.connect.generated.agentrouter.insights.v1 import request_logs_pb as pb
from api.connect.messages import log_message, parameters_of, read_as
from api.errors import ApiError
from api.request_logs.lookup import find_log
from api.request_logs.page import list_logs
from api.request_logs.parameters import LogParameters, StatsParameters
from api.request_logs.schemas import LogPage
from api.request_logs.stats import answer_stats
from api.security.reader import Reader

PACKAGE = "agentrouter.insights.v1"


def query_request_logs(reader: Reader, asked: pb.QueryRequestLogsRequest) -> pb.QueryRequestLogsResponse:
    return _page(list_logs(reader, parameters_of(asked, LogParameters)), pb.QueryRequestLogsResponse)


def get_request_log(reader: Reader, asked: pb.GetRequestLogRequest) -> pb.GetRequestLogResponse:
    return pb.GetRequestLogResponse(log=log_message(find_log(reader, asked.request_id)))


def get_request_log_stats(reader: Reader, asked: pb.GetRequestLogStatsRequest) -> pb.GetRequestLogStatsResponse:
    answer = answer_stats(reader, parameters_of(asked, StatsParameters))
    return read_as(pb.GetRequestLogStatsResponse, answer)


def list_customer_request_logs(
    reader: Reader, asked: pb.ListCustomerRequestLogsRequest
) -> pb.ListCustomerRequestLogsResponse:
    """The logs of the caller's user. Raises ApiError 403 for a key that is not confined to one."""
    restriction = reader.caller.restriction
    if restriction is None or restriction.user_id is None:
        raise ApiError(403, "Only a key that is confined to a user may ask this; others ask QueryRequestLogs.")
    parameters = parameters_of(asked, LogParameters, user_id=restriction.user_id)
    return _page(list_logs(reader, parameters), pb.ListCustomerRequestLogsResponse)


Page = TypeVar("Page", pb.QueryRequestLogsResponse, pb.ListCustomerRequestLogsResponse)


def _page(page: LogPage, answer: type[Page]) -> Page:
    return answer(
        logs=[log_message(log) for log in page.logs],
        next_page_token=page.next_page_token,
        total_count=page.total_count,
        total_count_is_approximate=page.total_count_is_approximate,
    )


class Method(NamedTuple):
    """A method of a service: its messages, and the function that answers it."""

    service: str
    name: str
    asked: type[Message]
    answered: type[Message]
    answer: Callable[[Reader, Any], Message]

    @property
    def path(self) -> str:
        return f"/{PACKAGE}.{self.service}/{self.name}"

    @property
    def info(self) -> MethodInfo[Message, Message]:
        return MethodInfo(
            name=self.name,
            service_name=f"{PACKAGE}.{self.service}",
            input=self.asked,
            output=self.answered,
            idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS,
            stream_type=StreamType.UNARY,
        )


METHODS = (
    Method(
        "RequestLogsService",
        "QueryRequestLogs",
        pb.QueryRequestLogsRequest,
        pb.QueryRequestLogsResponse,
        query_request_logs,
    ),
    Method("RequestLogsService", "GetRequestLog", pb.GetRequestLogRequest, pb.GetRequestLogResponse, get_request_log),
    Method(
        "RequestLogsService",
        "GetRequestLogStats",
        pb.GetRequestLogStatsRequest,
        pb.GetRequestLogStatsResponse,
        get_request_log_stats,
    ),
    Method(
        "CustomerRequestLogsService",
        "ListCustomerRequestLogs",
        pb.ListCustomerRequestLogsRequest,
        pb.ListCustomerRequestLogsResponse,
        list_customer_request_logs,
    ),
)
