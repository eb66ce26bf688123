"""How often a key may search and ask for suggestions."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from api.settings import ApiSettings
from tests.support.api import client_of, filled_warehouse, settings
from tests.support.rows import random_rows

SEARCH, SUGGESTIONS = "/api/public/v2/requests/search", "/api/public/v2/requests/suggestions?field=engine"


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[TestClient]:
    with (
        filled_warehouse(engine_url, random_rows(1, 20)) as warehouse,
        client_of(warehouse, search_limit="3/hour", suggestions_limit="2 per 1 hour") as client,
    ):
        yield client


def test_a_key_that_asks_too_often_is_told_when_to_come_back(client: TestClient) -> None:
    statuses = [client.post(SEARCH, json={}).status_code for _ in range(3)]
    refused = client.post(SEARCH, json={})
    assert statuses == [200, 200, 200]
    assert refused.status_code == 429
    assert refused.json() == {"success": False, "message": "Rate limit exceeded. Please retry later."}
    assert 1 <= int(refused.headers["Retry-After"]) <= 3600


def test_limits_are_per_endpoint_and_per_key(client: TestClient) -> None:
    assert [client.get(SUGGESTIONS).status_code for _ in range(3)] == [200, 200, 429]
    other = {"Authorization": "", "X-API-KEY": "ak-other"}
    assert client.get(SUGGESTIONS, headers={**other, "Authorization": "Bearer ak-other"}).status_code == 200
    assert client.get(SUGGESTIONS, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_words_count_as_a_search_wherever_they_are_looked_for(engine_url: str) -> None:
    overview = "/api/public/v2/requests/analytics"
    chart = {"id": "c", "chartType": "bar", "metric": "count"}
    with filled_warehouse(engine_url, []) as warehouse, client_of(warehouse, search_limit="3/hour") as client:
        assert client.post(SEARCH, json={"q": "a"}).status_code == 200
        assert client.post(overview, json={"q": "a"}).status_code == 200
        charts = {"q": "a", "customCharts": [chart]}
        assert [client.post(f"{overview}/custom-analytics", json=charts).status_code for _ in range(2)] == [200, 429]
        assert client.post(overview, json={"q": "a"}).status_code == 429
        # Without words they are as cheap as before.
        assert client.post(overview, json={}).status_code == 200
        assert client.post(f"{overview}/custom-analytics", json={"customCharts": [chart]}).status_code == 200


def test_without_a_limit_a_key_asks_as_often_as_it_likes(engine_url: str) -> None:
    with filled_warehouse(engine_url, []) as warehouse, client_of(warehouse) as client:
        assert {client.post(SEARCH, json={}).status_code for _ in range(30)} == {200}


def test_the_limits_are_those_of_the_contract_unless_set() -> None:
    defaults = ApiSettings(api_keys="k")
    assert (defaults.search_limit, defaults.suggestions_limit) == ("10/minute", "10/minute")


def test_a_limit_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="search_limit"):
        settings(search_limit="often")
