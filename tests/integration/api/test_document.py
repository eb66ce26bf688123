"""Health, version, and the OpenAPI document: every operation explained, with examples and every status it has."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from api.analytics.errors import PREFIX
from api.analytics.search.request import SearchQuery
from api.analytics.search.schemas import FoundRequest, SearchAnswer
from api.analytics.suggestions.parameters import SuggestionParameters
from api.analytics.suggestions.schemas import SuggestionAnswer
from api.errors import CODES
from api.request_logs.parameters import LogParameters, StatsParameters
from api.request_logs.schemas import ExplainedLog, LogPage, RequestLog, StatsAnswer, StatsGroup
from api.settings import ApiSettings
from tests.support.api import client_of, client_without_data, get
from tests.support.checkout import ROOT


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[TestClient]:
    with client_without_data(engine_url) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient) -> Any:
    return get(client, "/openapi.json")


STATUSES = {
    ("get", "/v1/request-logs"): {200, 400, 401, 403, 429, 500, 503, 504},
    ("get", "/v1/request-logs/{request_id}"): {200, 400, 401, 403, 404, 429, 500, 503, 504},
    ("get", "/v1/request-logs/stats"): {200, 400, 401, 403, 429, 500, 503, 504},
    ("post", "/v1/events"): {202, 400, 401, 403, 413, 415, 422, 429, 500, 503},
    ("get", "/v1/events/schema"): {200, 400, 401, 403, 429, 500, 503},
    ("get", "/v1/analytics/meta"): {200, 400, 401, 403, 429, 500},
    ("post", "/api/public/v2/requests/analytics"): {200, 400, 401, 403, 413, 422, 429, 500, 503, 504},
    ("post", "/api/public/v2/requests/analytics/custom-analytics"): {200, 400, 401, 403, 413, 422, 429, 500, 503, 504},
    ("post", "/api/public/v2/requests/search"): {200, 400, 401, 403, 413, 422, 429, 500, 503, 504},
    ("get", "/api/public/v2/requests/suggestions"): {200, 400, 401, 403, 422, 429, 500, 503, 504},
    ("get", "/v1/budgets"): {200, 400, 401, 403, 429, 500, 503},
    ("put", "/v1/budgets/{budget_id}"): {200, 400, 401, 403, 429, 500, 503},
    ("delete", "/v1/budgets/{budget_id}"): {200, 400, 401, 403, 404, 429, 500, 503},
    ("get", "/v1/alerts"): {200, 400, 401, 403, 429, 500, 503, 504},
    ("get", "/v1/usage/live"): {200, 400, 401, 403, 429, 500, 503, 504},
    ("get", "/v1/usage/live/stream"): {200, 400, 401, 403, 429, 500, 503, 504},
    ("get", "/healthz"): {200, 400, 500},
    ("get", "/readyz"): {200, 400, 500, 503},
    ("get", "/version"): {200, 400, 500},
}


def test_the_document_declares_every_status_of_every_operation(document: Any) -> None:
    declared = {
        (method, path): {int(status) for status in operation["responses"]}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert declared == STATUSES


def test_every_error_is_documented_in_the_one_shape_of_its_api(document: Any) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                [(media_type, content)] = response["content"].items()
                is_stream = media_type == "text/event-stream"
                assert is_stream is (operation["operationId"] == "stream_live_usage" and status == "200")
                schema = content.get("schema", {})
                is_error = schema.get("$ref", "").endswith(
                    "/AnalyticsError" if path.startswith(PREFIX) else "/ErrorAnswer"
                )
                assert is_error is (int(status) >= 400)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_answer_has_an_example_and_every_operation_a_description(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            for status, response in operation["responses"].items():
                [content] = response["content"].values()
                name = content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
                assert "examples" in str(schemas.get(name)) or "example" in content, (operation["operationId"], status)


def test_the_examples_are_valid_answers() -> None:
    for model in (RequestLog, ExplainedLog, LogPage, StatsAnswer, SearchAnswer, SuggestionAnswer):
        config: Any = model.model_config["json_schema_extra"]
        for example in config["examples"]:
            assert model.model_validate(example).model_dump(mode="json", exclude_unset=True) == example


def test_no_parameter_offers_null_or_hides_its_limits(document: Any) -> None:
    parameters = {
        parameter["name"]: parameter["schema"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
    }
    assert "null" not in str(parameters)
    assert (parameters["page_size"]["minimum"], parameters["page_size"]["maximum"]) == (1, 1000)
    assert parameters["start_time"]["format"] == "date-time"


def test_only_health_and_version_need_no_key(document: Any) -> None:
    open_paths = {
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if not operation.get("security")
    }
    assert open_paths == {"/healthz", "/readyz", "/version"}


def test_the_reference_names_every_path_parameter_field_and_error(document: Any) -> None:
    docs = ROOT / "docs"
    text = (docs / "api.md").read_text() + (docs / "analytics.md").read_text()
    asked = (LogParameters, StatsParameters, SearchQuery, SuggestionParameters)
    answered = (ExplainedLog, LogPage, StatsGroup, StatsAnswer, SearchAnswer, FoundRequest, SuggestionAnswer)
    parameters = {name for model in asked for name in model.model_fields}
    fields = {name for model in answered for name in model.model_fields}
    # Costs before the fee are described once for all.
    fields = {name.removesuffix("_before_fee") for name in fields}
    for name in {*document["paths"], *parameters, *fields, *CODES.values(), *map(str, CODES)}:
        assert re.search(rf"(?<![\w]){re.escape(name)}(?!\w)", text), name


def test_a_migrated_warehouse_is_ready(warehouse: Warehouse) -> None:
    with client_of(warehouse) as client:
        assert get(client, "/readyz") == {"status": "ok"}


def test_a_warehouse_of_an_unreleased_version_is_not_ready(warehouse: Warehouse) -> None:
    warehouse.command("INSERT INTO schema_migrations (number, name) VALUES (0, '0000_create_request_payloads')")
    with client_of(warehouse) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "cannot be upgraded: name an empty database" in answer.json()["message"]


def test_the_version_is_that_of_the_distribution(client: TestClient) -> None:
    assert get(client, "/version") == {"name": "router-insights", "version": version("router-insights")}


@pytest.mark.parametrize("keys", ["", " ", ",", " , "])
def test_the_api_does_not_start_without_a_key(keys: str) -> None:
    with pytest.raises(ValidationError, match="at least one key"):
        ApiSettings(api_keys=keys)


def test_settings_come_from_the_environment_and_never_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHTS_API_KEYS", "ak-1, ak-2 ,")
    monkeypatch.setenv("INSIGHTS_CLICKHOUSE_URL", "https://me:hush@host:8443/insights")
    settings = ApiSettings()
    assert settings.keys == ["ak-1", "ak-2"]
    assert settings.port == 8080
    for secret in ("hush", "ak-1"):
        assert secret not in repr(settings)
    assert all(field.description for field in ApiSettings.model_fields.values())
