"""schemathesis against the served OpenAPI document: no 500, no status or body that the document does not name."""

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from tests.support.analytics_stack import Analytics
from tests.support.api import KEY
from tests.support.api import settings as api_settings

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))
# A stream of live usage does not end.
ENDLESS = "/v1/usage/live/stream"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def served(analytics: Analytics) -> Any:
    app = create_app(api_settings(), analytics.warehouse)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def _operations() -> list[tuple[str, str]]:
    paths = create_app(api_settings(), Warehouse("chdb:///nowhere")).openapi()["paths"]
    return [(path, method) for path, methods in paths.items() for method in methods if path != ENDLESS]


@pytest.mark.parametrize(("path", "method"), _operations())
def test_an_operation_answers_as_its_document_says(served: Any, path: str, method: str) -> None:
    @given(case=served[path][method].as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def answers_as_documented(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {KEY}"})
        # Without Kafka no events are taken, and that is documented too.
        assert response.status_code != 500
        checks = [check for check in CHECKS if response.status_code != 503 or check is not not_a_server_error]
        case.validate_response(response, checks=checks)

    answers_as_documented()
