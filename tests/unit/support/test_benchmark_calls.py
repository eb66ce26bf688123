"""The reads part of the benchmarks forgets no route."""

from tempfile import gettempdir

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from api.settings import ApiSettings
from tests.benchmarks.calls import LEFT_OUT, Ids, calls
from tests.benchmarks.rows import Shape


def test_every_route_that_reads_is_measured_or_left_out_by_name() -> None:
    app = create_app(
        ApiSettings.model_validate({"api_keys": "ak-bench"}), Warehouse(f"chdb://{gettempdir()}/never-opened")
    )
    routes = {
        f"{method.upper()} {path}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if method in {"get", "post"}
    }
    measured = {call.route for call in calls(Shape(1), Ids(["req-1"], ["req-1"]))}
    assert measured | LEFT_OUT.keys() == routes
    assert not measured & LEFT_OUT.keys()


def test_calls_are_told_apart_by_their_names() -> None:
    names = [call.name for call in calls(Shape(1), Ids(["req-1"], ["req-1"]))]
    assert len(names) == len(set(names))
