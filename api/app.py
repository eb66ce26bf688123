"""The application: its routers, middleware, error formats and OpenAPI document."""

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from aggregator.clickhouse.client import Warehouse
from api import docs_ui, errors, health, openapi
from api.analytics import errors as analytics_errors
from api.analytics import routes as analytics
from api.budgets import routes as budgets
from api.budgets.store import BudgetStore
from api.connect import protocol as connect_protocol
from api.connect import routes as connect
from api.events import routes as events
from api.events.publisher import EventPublisher
from api.live_usage import routes as live_usage
from api.load.query_threads import QueryThreads
from api.load.request_threads import RequestThreads
from api.mcp import errors as mcp_errors
from api.mcp import routes as mcp
from api.mcp.price_list import PriceList
from api.middleware import Bounds, HeadAsGet, Inflate, RequestId
from api.parameters import refuse_repeats
from api.request_logs import routes as request_logs
from api.security.auth import allow
from api.security.keyring import KeyRing
from api.security.permissions import Permission
from api.security.rate_limits import RateLimits
from api.settings import ApiSettings


def create_app(
    settings: ApiSettings,
    warehouse: Warehouse,
    event_publisher: EventPublisher | None = None,
    budget_store: BudgetStore | None = None,
    price_list: PriceList | None = None,
) -> FastAPI:
    """The application over `warehouse`, which the caller closes.

    Without `event_publisher` it accepts no events, without `budget_store` it has no budgets, without `price_list` no
    prices of models.
    """
    app = FastAPI(
        title="router-insights",
        version=health.installed_version(),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.keys = KeyRing.of_settings(settings.keys, warehouse)
    app.state.rate_limits = RateLimits(
        settings.request_limit,
        settings.wrong_key_limit,
        {"search": settings.search_limit, "suggestions": settings.suggestions_limit},
    )
    app.state.warehouse = warehouse
    app.state.readiness = health.readiness(warehouse)
    app.state.query_threads = QueryThreads(settings.max_queries, warehouse.kill)
    app.state.request_threads = RequestThreads(settings.max_requests, settings.max_requests_of_key)
    app.state.limits = {
        "max_execution_time": settings.max_execution_time_seconds,
        "max_memory_usage": settings.max_memory_bytes,
    }
    app.state.event_publisher = event_publisher
    app.state.budget_store = budget_store
    app.state.price_list = price_list
    app.state.origins = frozenset(settings.origins)
    errors.install(app, analytics_errors.FORMAT, connect_protocol.FORMAT, mcp_errors.FORMAT)
    docs_ui.install(app)
    _add_middleware(app, settings)
    _add_routers(app)
    app.openapi = lambda: openapi.document_of(app)  # type: ignore[method-assign]
    return app


def _add_routers(app: FastAPI) -> None:
    app.include_router(health.router, dependencies=[Depends(refuse_repeats)])
    for router, permission in (
        (request_logs.router, Permission.READ),
        (connect.router, Permission.READ),
        (mcp.router, Permission.READ),
        (events.router, Permission.SEND),
        (analytics.router, Permission.READ),
        (budgets.router, Permission.READ),
        (live_usage.router, Permission.READ),
    ):
        app.include_router(router, dependencies=[allow(permission), Depends(refuse_repeats)])


def _add_middleware(app: FastAPI, settings: ApiSettings) -> None:
    """The last one added is the outermost."""
    app.add_middleware(Inflate)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Bounds, timeout_seconds=settings.request_timeout_seconds)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "X-API-KEY",
                "X-Request-ID",
                *connect_protocol.HEADERS,
                *mcp.HEADERS,
            ],
            expose_headers=["Retry-After", "X-Request-ID", *connect_protocol.ANSWER_HEADERS],
        )
    app.add_middleware(RequestId)
