"""Ask router-insights who spent what, on which model, when, and which request failed.

`Client` and `AsyncClient` ask the API. What a name needs is imported when the name is first used.
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
    from router_insights.errors import (
        ApiConnectionError,
        ApiError,
        ApiTimeoutError,
        AuthenticationError,
        DeadlineExceededError,
        InvalidRequestError,
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
    "errors": (
        "ApiConnectionError",
        "ApiError",
        "ApiTimeoutError",
        "AuthenticationError",
        "DeadlineExceededError",
        "InvalidRequestError",
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
    "ExplainedLog",
    "FoundRequest",
    "InvalidRequestError",
    "LiveUsage",
    "NotFoundError",
    "Overview",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestLog",
    "RequestLogPage",
    "RequestLogStats",
    "RouterInsightsError",
    "SearchPage",
    "UnavailableError",
    "UnexpectedAnswerError",
    "to_arrow",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
