"""Every field and operator of the filter language on rows that went through Kafka, against plain Python."""

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.clickhouse.sql import Binder, all_of
from api.analytics.filters.compile import compile_filter
from api.analytics.filters.fields import FIELDS, INTENTS, OPERATORS, FieldKind
from api.analytics.filters.tree import Filter
from api.analytics.request import RequestLogQuery
from api.analytics.where import filter_condition
from tests.support.analytics import NESTED, flatten, holds, value
from tests.support.analytics_stack import KEYS, ODD_TEXTS, Analytics

EXAMPLES = int(os.environ.get("ANALYTICS_EXAMPLES", "40"))
ODD_VALUES = (*ODD_TEXTS, "nobody", "a\0b", "\0", "x" * 300, "\u2028", "%_\\", "'; DROP TABLE request_logs --")
NUMBERS = (0, 1, -1, 7, 42, 100, 1200, 0.1, 0.02, 0.15, 1e-9, 1e300, 2**53, -0.0, 2.5)
DATES = (
    "1970-01-01",
    "2015-01-01",
    "2025-06-01",
    "2025-06-02",
    "2026-03-25",
    "2026-03-29",
    "2099-12-31",
    "2100-01-01",
    "0001-01-01",
)
ORDER = "ORDER BY timestamp, request_id"


def matched(analytics: Analytics, tree: dict[str, Any]) -> list[str]:
    """Ids that the compiled filter lets through."""
    condition = filter_condition(RequestLogQuery.model_validate({"filter_group": tree}).filter_group)
    sql = f"SELECT request_id FROM request_logs WHERE {all_of(condition.sql)} {ORDER}"
    return [row["request_id"] for row in analytics.warehouse.query(sql, condition.parameters)]


def verdicts(analytics: Analytics, leaves: list[dict[str, Any]]) -> list[list[bool]]:
    """For each filter, in as few queries as the parser takes, whether it lets each row through."""
    found: list[list[bool]] = []
    for start in range(0, len(leaves), 50):
        binder = Binder()
        some = [compile_filter(Filter.model_validate(leaf), binder) for leaf in leaves[start : start + 50]]
        sql = f"SELECT [{', '.join(f'toUInt8({condition})' for condition in some)}] AS holds FROM request_logs {ORDER}"
        rows = [row["holds"] for row in analytics.warehouse.query(sql, binder.parameters)]
        found += [[bool(row[place]) for row in rows] for place in range(len(some))]
    return found


def expected(analytics: Analytics, tree: dict[str, Any]) -> list[str]:
    return [row["request_id"] for row in analytics.rows if holds(row, tree)]


def _seen(analytics: Analytics, field: str) -> list[Any]:
    """Some values that rows have."""
    found: dict[Any, None] = {}
    for row in analytics.rows:
        inside = value(row, field)
        for item in inside if isinstance(inside, list) else [inside]:
            if item not in (None, ""):
                found[item] = None
    return list(found)[:3]


def _operands(analytics: Analytics, field: str, kind: FieldKind, operator: str) -> list[Any]:
    """Values to try an operator with: ones that rows have, and odd ones."""
    if operator in ("is_null", "is_not_null", "is_true", "is_false", "is_empty", "is_not_empty"):
        return [None]
    seen = _seen(analytics, field) if kind is not FieldKind.NESTED else []
    one: list[Any]
    if kind is FieldKind.NUMERIC:
        one = [*map(float, seen), *NUMBERS]
    elif kind is FieldKind.DATETIME:
        one = [*(moment.isoformat() for moment in seen), *DATES]
    elif kind is FieldKind.TEXT:
        one = ["refund", "REFUND days", "Zoë", "100% panic", "zzz", "[user", "école"]
        return [text[:20] for text in seen] + one
    elif kind is FieldKind.NESTED:
        one = [True, False, 42, 42.0, 0.95, "42", "approved", "x", 1e-7, 1e22, 2**53 + 1, *ODD_VALUES]
    else:
        one = list(INTENTS.get(field, [*seen, *ODD_VALUES]))
        one += [17, 1001, 1001.0] if kind is FieldKind.IDENTIFIER else []
    if operator == "between":
        ordered = sorted(one) if kind is FieldKind.NUMERIC else [min(one), "2026-03-25T00:00:00Z"]
        return [[ordered[0], ordered[-1]], [ordered[len(ordered) // 2]] * 2]
    return [one, one[:1], []] if operator in ("in", "not_in") else one


@pytest.mark.parametrize(
    ("field", "operator"), [(field.name, operator) for field in FIELDS for operator in OPERATORS[field.kind]]
)
def test_an_operator_lets_through_what_plain_python_does(analytics: Analytics, field: str, operator: str) -> None:
    kind = next(row.kind for row in FIELDS if row.name == field)
    keys: tuple[str | None, ...] = (None,)
    if field in NESTED:
        flat = [flatten(value(row, field)) for row in analytics.rows]
        keys = (*sorted({key for found in flat for key in found}), "absent", "", "deep", "^deep", "a.:Int64", "\0")
    leaves = [
        {"field": field, "operator": operator, "value": operand, "nested_key": key}
        for place, key in enumerate(keys)
        for operand in _operands(analytics, field, kind, operator)[place % 4 :: 1 if field not in NESTED else 4]
    ]
    for leaf, found in zip(leaves, verdicts(analytics, leaves), strict=True):
        assert found == [holds(row, leaf) for row in analytics.rows], leaf


def test_the_rows_have_what_the_tests_look_for(analytics: Analytics) -> None:
    """No operator above is tried on fields that are empty everywhere."""
    for field in FIELDS:
        found = [value(row, field.name) for row in analytics.rows]
        assert any(inside not in (None, "", [], {}, False) for inside in found), field.name
        assert any(inside in (None, "", [], {}, False) for inside in found) or field.name in ALWAYS_THERE, field.name


ALWAYS_THERE = {"pl_id", "engine", "status", "request_start_time"}


def _leaf(field: str) -> st.SearchStrategy[dict[str, Any]]:
    kind = next(row.kind for row in FIELDS if row.name == field)
    texts = st.sampled_from(ODD_VALUES) | st.text(st.characters(codec="utf-8"), max_size=5)
    numbers = st.sampled_from(NUMBERS) | st.floats(-1e6, 1e6)
    dates = st.sampled_from(DATES) | st.datetimes().map(lambda moment: moment.isoformat())
    ordinary = {
        FieldKind.IDENTIFIER: st.sampled_from(["1001", 1004, "17", "random-5"]) | texts,
        FieldKind.NUMERIC: numbers,
        FieldKind.DATETIME: dates,
        FieldKind.TEXT: st.sampled_from(["refund policy", "hello", "panic", "Zoë"]),
        FieldKind.NESTED: st.sampled_from([True, False, 42, "42", "approved", "search", "x", 0.95]) | texts | numbers,
        FieldKind.INTENT: st.sampled_from(INTENTS.get(field, ("",))),
    }.get(
        kind, st.sampled_from(["gpt-4o", "openai", "ERROR", "alice", "key-1", "s-1", "a", "b'c", "search", "n"]) | texts
    )

    def operand(operator: str) -> st.SearchStrategy[Any]:
        if operator in ("in", "not_in"):
            return st.lists(ordinary, max_size=4)
        if operator == "between":
            return st.tuples(ordinary, ordinary).map(lambda pair: sorted(pair))
        has_none = (operator.startswith("is_") and operator != "is_not") or operator in ("is_null", "is_empty")
        return st.none() if has_none else ordinary

    key = st.sampled_from([*KEYS, "deep", "result.status", "result.score", "name", "deep.list", "items.name", "limit"])
    return st.sampled_from(OPERATORS[kind]).flatmap(
        lambda operator: st.fixed_dictionaries(
            {
                "field": st.just(field),
                "operator": st.just(operator),
                "value": operand(operator),
                "nested_key": key if kind is FieldKind.NESTED else st.none(),
            }
        )
    )


leaves = st.sampled_from([field.name for field in FIELDS]).flatmap(_leaf)
trees = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {"logic": st.sampled_from(["AND", "OR"]), "filters": st.lists(inner, max_size=4)}
    ),
    max_leaves=12,
).map(lambda tree: tree if "filters" in tree else {"filters": [tree]})


def _is_valid(tree: dict[str, Any]) -> bool:
    """Without a range whose ends are dates of different lengths and out of order."""
    try:
        RequestLogQuery.model_validate({"filter_group": tree})
    except ValueError as error:
        if "must not be above" in str(error):
            return False
        raise
    return True


@given(tree=trees.filter(_is_valid))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_trees_let_through_what_plain_python_does(analytics: Analytics, tree: dict[str, Any]) -> None:
    assert matched(analytics, tree) == expected(analytics, tree)


@given(tree=trees.filter(_is_valid))
@settings(max_examples=max(10, EXAMPLES // 4), deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_counts_what_random_trees_let_through(analytics: Analytics, tree: dict[str, Any]) -> None:
    count = {"id": "n", "chartType": "bar", "metric": "count"}
    answer = analytics.charts(count, filter_group=tree)
    assert answer[0]["data"] == [{"label": "Overall", "value": len(expected(analytics, tree))}]


@pytest.mark.parametrize("field", ["pl_id", "user_id", "tags", "metadata"])
def test_a_list_of_ten_thousand_is_compared_with_every_row(analytics: Analytics, field: str) -> None:
    values = [f"{number:04d} {odd}"[:30] for number in range(1000) for odd in ODD_TEXTS[:9]]
    values += ["alice", "1001", "a", "search", *(f"\0{n}" for n in range(996))]
    assert len(values) == 10_000
    key = "team" if field == "metadata" else None
    for operator in ("in", "not_in"):
        tree = {"filters": [{"field": field, "operator": operator, "value": values, "nested_key": key}]}
        found = matched(analytics, tree)
        assert 0 < len(found) < len(analytics.rows)
        assert found == expected(analytics, tree)


def test_values_that_are_too_long_together_are_refused_with_a_reason(analytics: Analytics) -> None:
    leaf = {"field": "user_id", "operator": "in", "value": ["é" * 1000] * 160}
    body = {"filter_group": {"filters": [leaf]}, "customCharts": [{"id": "n", "chartType": "bar", "metric": "count"}]}
    answer = analytics.post("analytics/custom-analytics", body, 400)
    assert answer == {
        "success": False,
        "message": "filter_group: the values of the filter are too many or too long together",
    }


def test_the_largest_tree_is_answered(analytics: Analytics) -> None:
    leaf = {"field": "metadata", "operator": "key_equals", "nested_key": "a'b\"`\\%", "value": "100%"}
    tree: dict[str, Any] = {"logic": "OR", "filters": [leaf] * 191}
    for _ in range(9):
        tree = {"filters": [tree]}
    assert matched(analytics, tree) == expected(analytics, {"filters": [leaf]})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'{"filter_group": ' + b"[" * 100_000, 400),
        (b"\xff\xfe", 422),
        (b'{"filter_group": {"filters": [{"field": "engine", "operator": "is", "value": "\\ud800"}]}}', 422),
        (b'{"filter_group": {"filters": [{"field": "cost", "operator": "eq", "value": NaN}]}}', 422),
        (b'{"filter_group": {"filters": [{"field": "cost", "operator": "eq", "value": 1e999}]}}', 422),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_the_shape_of_this_api(
    analytics: Analytics, body: bytes, status: int
) -> None:
    response = analytics.client.post(
        "/api/public/v2/requests/analytics/custom-analytics",
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == status, response.text
    assert set(response.json()) == {"success", "message"}
    assert json.loads(response.text)["success"] is False
