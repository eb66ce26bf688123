"""Suggestions against plain Python over the same rows, and what is refused."""

import json
from collections import Counter
from typing import Any

import pytest

from api.analytics.suggestions import queries
from api.analytics.suggestions.schemas import MAX_VALUES
from tests.support.analytics import flatten, holds
from tests.support.analytics_stack import Analytics
from tests.support.rows import Row, folded

COLUMNS = {
    "engine": "model_name",
    "provider_type": "provider",
    "prompt_id": "prompt_id",
    "prompt": "prompt_name",
    "status": "status",
    "tags": "tags",
    "metadata_keys": "metadata_keys",
    "tool_names": "tool_names",
    "output_keys": "output_keys",
    "input_variable_keys": "input_variable_keys",
}
NESTED = {"metadata_values": "metadata", "output_values": "output", "input_variable_values": "variables"}
KEYS = {"metadata_values": "team", "output_values": "result.status", "input_variable_values": "name"}
RECENT = {"filters": [{"field": "request_start_time", "operator": "after", "value": "2026-03-25"}]}
OF_A_TAG = {"logic": "AND", "filters": [{"field": "tags", "operator": "contains", "value": "a"}]}


def suggest(found: Analytics, status: int = 200, **parameters: Any) -> Any:
    response = found.client.get("/api/public/v2/requests/suggestions", params=parameters)
    assert response.status_code == status, response.text
    return response.json()


def values_of(row: Row, field: str) -> set[str]:
    if field in NESTED:
        return set(flatten(row[NESTED[field]]).get(KEYS[field], []))
    found = row[COLUMNS[field]]
    if field == "status":
        return {folded(found)}
    return set(found) if isinstance(found, list) else {found}


def expected(rows: list[Row], field: str, prefix: str = "") -> list[str]:
    counts = Counter(text for row in rows for text in values_of(row, field) if text)
    names = [name for name in counts if name.lower().startswith(prefix.lower())]
    return sorted(names, key=lambda name: (-counts[name], name))[:MAX_VALUES]


@pytest.mark.parametrize("field", [*COLUMNS, *NESTED])
def test_every_field_suggests_its_values_most_frequent_first(analytics: Analytics, field: str) -> None:
    key: dict[str, Any] = {"metadata_key": KEYS[field]} if field in NESTED else {}
    every = suggest(analytics, field=field, **key)
    assert every == {"success": True, "values": expected(analytics.rows, field)}
    for tree in (RECENT, OF_A_TAG):
        rows = [row for row in analytics.rows if holds(row, tree)]
        found = suggest(analytics, field=field, filter_group=json.dumps(tree), **key)["values"]
        assert found == expected(rows, field)
    for prefix in ("S", "gPT-4", "é", "%", "'", "\\"):
        found = suggest(analytics, field=field, prefix=prefix, **key)["values"]
        assert found == expected(analytics.rows, field, prefix), prefix


def test_only_the_newest_requests_are_looked_at(analytics: Analytics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "NEWEST_ROWS", 100)
    newest = sorted(analytics.rows, key=lambda row: row["timestamp"], reverse=True)
    rows = [row for row in newest if row["timestamp"] >= newest[100]["timestamp"]]
    assert suggest(analytics, field="tags")["values"] == expected(rows, "tags")


def test_the_names_of_one_prompt_are_asked_for_by_its_id(analytics: Analytics) -> None:
    rows = [row for row in analytics.rows if row["prompt_id"] == "17"]
    assert suggest(analytics, field="prompt", prompt_id=17)["values"] == expected(rows, "prompt")


@pytest.mark.parametrize(
    ("parameters", "status", "name"),
    [
        ({}, 422, "field"),
        ({"field": "cost"}, 422, "field"),
        ({"field": "metadata_values"}, 400, "metadata_key"),
        ({"field": "tags", "metadata_key": "team"}, 400, "metadata_key"),
        ({"field": "prompt", "prompt_id": -1}, 422, "prompt_id"),
        ({"field": "tags", "prompt_id": 1}, 400, "prompt_id"),
        ({"field": "tags", "filter_group": "{"}, 422, "filter_group"),
        ({"field": "tags", "filter_group": "7"}, 422, "filter_group"),
        ({"field": "tags", "filter_group": "[" * 5000}, 422, "filter_group"),
        ({"field": "tags", "filter_group": '{"filters": [{"field": "x", "operator": "is"}]}'}, 422,
         "filter_group.filters[0].field"),
        ({"field": "tags", "filter_group": '{"filters": [{"field": "cost", "operator": "is"}]}'}, 400,
         "filter_group.filters[0].operator"),
        ({"field": "tags", "limit": 3}, 422, "limit"),
        ({"field": ["tags", "tags"]}, 400, "field"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(
    analytics: Analytics, parameters: dict[str, Any], status: int, name: str
) -> None:
    answer = suggest(analytics, status, **parameters)
    assert answer["success"] is False
    assert answer["message"].startswith(name)
