"""No route takes a thread of the pool that all share: it must be answered when readers have every thread."""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.parameters import refuse_repeats
from api.security.auth import allow
from api.security.permissions import Permission
from tests.support.api import settings


def routes_of(app: Any) -> Iterator[APIRoute]:
    for each in app.routes:
        yield from (route for route in getattr(getattr(each, "original_router", None), "routes", [each]))


def calls_of(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from calls_of(each)


def is_async(call: Any) -> bool:
    # A security scheme of FastAPI is an object with an async __call__.
    functions = (call, getattr(call, "__call__", None))  # noqa: B004 - to look at it, not to call it
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def test_every_route_and_every_dependency_is_async() -> None:
    app = create_app(settings(), Warehouse("http://127.0.0.1:1/insights"))
    routes = [route for route in routes_of(app) if isinstance(route, APIRoute)]
    assert len(routes) > 15
    calls = {(route.path, call) for route in routes for call in calls_of(route.dependant)}
    assert {getattr(call, "__name__", "") for _, call in calls} > {"_caller_of", "_reading"}
    # Those of whole routers are kept apart from their routes.
    calls |= {("every path", call) for call in (refuse_repeats, allow(Permission.READ).dependency)}
    assert [(path, call) for path, call in calls if not is_async(call)] == []
