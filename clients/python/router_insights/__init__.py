"""Ask router-insights who spent what, on which model, when, and which request failed.

`Client` and `AsyncClient` ask the API; `EventEmitter` and `SyncEventEmitter` tell it of requests, over Kafka. What a
name needs is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router_insights.answers.analytics import AnalyticsFields, Chart, ChartAnswer, FoundRequest, SearchPage
    from router_insights.answers.budgets import Alert, AlertList, Budget, BudgetList
    from router_insights.answers.live_usage import LiveUsage
    from router_insights.answers.overview import Overview
    from router_insights.answers.request_logs import ExplainedLog, RequestLog, RequestLogPage, RequestLogStats
    from router_insights.client import AsyncClient, Client
    from router_insights.emitter.event import RequestEvent
    from router_insights.emitter.event_emitter import EventEmitter
    from router_insights.emitter.sync_event_emitter import SyncEventEmitter
    from router_insights.errors import (
        ApiConnectionError,
        ApiError,
        ApiTimeoutError,
        AuthenticationError,
        DeadlineExceededError,
        EventTooLargeError,
        InvalidEventError,
        InvalidRequestError,
        KafkaUnavailableError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitedError,
        RouterInsightsError,
        UnavailableError,
        UnexpectedAnswerError,
    )
    from router_insights.table import to_arrow

__version__ = "0.1.0"

_MODULES = {
    "answers.analytics": ("AnalyticsFields", "Chart", "ChartAnswer", "FoundRequest", "SearchPage"),
    "answers.budgets": ("Alert", "AlertList", "Budget", "BudgetList"),
    "answers.live_usage": ("LiveUsage",),
    "answers.overview": ("Overview",),
    "answers.request_logs": ("ExplainedLog", "RequestLog", "RequestLogPage", "RequestLogStats"),
    "client": ("AsyncClient", "Client"),
    "emitter.event": ("RequestEvent",),
    "emitter.event_emitter": ("EventEmitter",),
    "emitter.sync_event_emitter": ("SyncEventEmitter",),
    "errors": (
        "ApiConnectionError",
        "ApiError",
        "ApiTimeoutError",
        "AuthenticationError",
        "DeadlineExceededError",
        "EventTooLargeError",
        "InvalidEventError",
        "InvalidRequestError",
        "KafkaUnavailableError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitedError",
        "RouterInsightsError",
        "UnavailableError",
        "UnexpectedAnswerError",
    ),
    "table": ("to_arrow",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Alert",
    "AlertList",
    "AnalyticsFields",
    "ApiConnectionError",
    "ApiError",
    "ApiTimeoutError",
    "AsyncClient",
    "AuthenticationError",
    "Budget",
    "BudgetList",
    "Chart",
    "ChartAnswer",
    "Client",
    "DeadlineExceededError",
    "EventEmitter",
    "EventTooLargeError",
    "ExplainedLog",
    "FoundRequest",
    "InvalidEventError",
    "InvalidRequestError",
    "KafkaUnavailableError",
    "LiveUsage",
    "NotFoundError",
    "Overview",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestEvent",
    "RequestLog",
    "RequestLogPage",
    "RequestLogStats",
    "RouterInsightsError",
    "SearchPage",
    "SyncEventEmitter",
    "UnavailableError",
    "UnexpectedAnswerError",
    "to_arrow",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("aiokafka", "pydantic"):
            raise
        needed = f"{name} needs {error.name}: pip install 'router-insights-client[kafka]'"
        raise ImportError(needed, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
