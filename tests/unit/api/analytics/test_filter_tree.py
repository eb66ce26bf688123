"""The filter tree as it is sent: what is refused, with which status and path; and that there is one table only."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.clickhouse.sql import text_of
from api.analytics.charts.request import CustomAnalyticsQuery
from api.analytics.errors import describe
from api.analytics.filters.field_listing import ANALYTICS_META, markdown_table
from api.analytics.filters.fields import ALL_OPERATORS, BY_NAME, OPERATORS
from api.analytics.filters.tree import MAX_DEPTH, MAX_ELEMENTS, MAX_FILTERS, MAX_TEXT, Filter, parse_moment
from api.analytics.request import RequestLogQuery
from api.analytics.where import filter_condition
from tests.support.checkout import ROOT

# Section 3 of the contract.
CONTRACT_FIELDS = """
pl_id prompt_id engine provider_type input_text output_text prompt_version_number input_tokens output_tokens cost
latency_ms request_start_time request_end_time status is_json is_tool_call is_plain_text tags metadata_keys metadata
tool_names output output_keys input_variables input_variable_keys user_intent agent_intent has_trace turn_count
tool_call_count
""".split()  # noqa: SIM905
CONTRACT_OPERATORS = """
is is_not in not_in contains not_contains starts_with ends_with eq neq gt gte lt lte between before after is_true
is_false is_empty is_not_empty is_null is_not_null key_equals key_not_equals key_contains
""".split()  # noqa: SIM905


def refusal(*filters: Any, **others: Any) -> tuple[int, str]:
    with pytest.raises(ValidationError) as caught:
        RequestLogQuery.model_validate({"filter_group": {"filters": list(filters)}, **others})
    return describe([{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()])


def engine(operator: str, value: Any = None, **others: Any) -> dict[str, Any]:
    return {"field": "engine", "operator": operator, "value": value, **others}


def nested(levels: int) -> dict[str, Any]:
    group: dict[str, Any] = {"filters": []}
    for _ in range(levels - 1):
        group = {"filters": [group]}
    return group


def test_every_field_and_operator_of_the_contract_is_there() -> None:
    assert set(CONTRACT_FIELDS) <= set(BY_NAME)
    assert set(CONTRACT_OPERATORS) == set(ALL_OPERATORS)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_field_takes_the_operators_of_its_type_and_no_other(name: str) -> None:
    for operator in ALL_OPERATORS:
        if operator in OPERATORS[BY_NAME[name].kind]:
            continue
        status, message = refusal({"field": name, "operator": operator})
        assert status == 400
        assert message.startswith(f"filter_group.filters[0].operator: {operator} is no operator of {name}; allowed: ")


SHAPES = {
    "unknown field": (engine("is", "x") | {"field": "engin"}, "filters[0].field"),
    "unknown operator": (engine("equals", "x"), "filters[0].operator"),
    "unknown property": (engine("is", "x", valu=1), "filters[0].valu"),
    "missing operator": ({"field": "engine"}, "filters[0].operator"),
    "missing filters": ({"logic": "OR"}, "filters[0].filters"),
    "logic in lower case": ({"logic": "or", "filters": []}, "filters[0].logic"),
    "a number as filter": (5, "filters[0]"),
    "null as filter": (None, "filters[0]"),
    "a number for a text": (engine("is", 1), "filters[0].value"),
    "no value": (engine("is"), "filters[0].value"),
    "a text for a list": (engine("in", "x"), "filters[0].value"),
    "a wrong element": (engine("in", ["x", None]), "filters[0].value[1]"),
    "a text for a number": ({"field": "cost", "operator": "gt", "value": "1"}, "filters[0].value"),
    "true for a number": ({"field": "cost", "operator": "gt", "value": True}, "filters[0].value"),
    "infinity": ({"field": "cost", "operator": "gt", "value": float("inf")}, "filters[0].value"),
    "a huge number": ({"field": "cost", "operator": "gt", "value": 10**400}, "filters[0].value"),
    "three bounds": ({"field": "cost", "operator": "between", "value": [1, 2, 3]}, "filters[0].value"),
    "no time": ({"field": "request_start_time", "operator": "is", "value": "30d"}, "filters[0].value"),
    "no such day": ({"field": "request_start_time", "operator": "is", "value": "2026-02-30"}, "filters[0].value"),
    "no such offset": (
        {"field": "request_start_time", "operator": "is", "value": "2026-02-03T10:00+24:00"},
        "filters[0].value",
    ),
    "half a character": (engine("is", "\ud800"), "filters[0].value"),
    "half a character in a list": (engine("in", ["a", "\ud800"]), "filters[0].value[1]"),
    "half a character as key": (
        {"field": "metadata", "operator": "is_empty", "nested_key": "\udfff"},
        "filters[0].nested_key",
    ),
    "an object for a value": (
        {"field": "metadata", "operator": "key_equals", "nested_key": "a", "value": {}},
        "filters[0].value",
    ),
    "a list too long": (engine("in", ["x"] * (MAX_ELEMENTS + 1)), "filters[0].value"),
    "a text too long": (engine("is", "x" * (MAX_TEXT + 1)), "filters[0].value"),
    "inside a group": ({"filters": [engine("is", "x"), engine("in", [2])]}, "filters[0].filters[1].value[0]"),
}
MEANINGLESS = {
    "no nested key": ({"field": "metadata", "operator": "is_empty"}, "filters[0].nested_key"),
    "a nested key too many": (engine("is", "x", nested_key="a"), "filters[0].nested_key"),
    "low above high": ({"field": "cost", "operator": "between", "value": [2, 1]}, "filters[0].value"),
    "a value for a test without": ({"field": "is_json", "operator": "is_true", "value": True}, "filters[0].value"),
    "no such intent": ({"field": "user_intent", "operator": "in", "value": ["curious", "sad"]}, "filters[0].value[1]"),
    "no word": ({"field": "input_text", "operator": "contains", "value": "?! "}, "filters[0].value"),
    "too deep": (nested(MAX_DEPTH), "filters[0]" * MAX_DEPTH),
    "far too deep": (nested(5000), "filters[0]" * MAX_DEPTH),
}


@pytest.mark.parametrize(("condition", "path"), SHAPES.values(), ids=SHAPES)
def test_a_wrong_shape_is_a_422_that_names_the_path(condition: Any, path: str) -> None:
    status, message = refusal(condition)
    assert (status, message.split(": ")[0]) == (422, f"filter_group.{path}")


@pytest.mark.parametrize(("condition", "path"), MEANINGLESS.values(), ids=MEANINGLESS)
def test_what_means_nothing_is_a_400_that_names_the_path(condition: Any, path: str) -> None:
    status, message = refusal(condition)
    assert (status, message.split(": ")[0].replace(".", "")) == (400, f"filter_group{path}".replace(".", ""))


def test_the_limits_themselves_are_allowed() -> None:
    group = {"filters": [engine("is", "x")] * (MAX_FILTERS - MAX_DEPTH), "logic": "OR"}
    for _ in range(MAX_DEPTH - 1):
        group = {"filters": [group]}
    RequestLogQuery.model_validate({"filter_group": group})
    RequestLogQuery.model_validate({"filter_group": {"filters": [engine("in", ["x" * 40] * MAX_ELEMENTS)]}})


def test_too_many_filters_are_refused() -> None:
    assert refusal(*[engine("is", "x")] * (MAX_FILTERS + 1))[0] == 400


def test_shape_is_judged_before_meaning() -> None:
    assert refusal(engine("gt", 1), {"field": "cost"})[0] == 422


def test_null_is_as_good_as_left_out() -> None:
    nothing = RequestLogQuery.model_validate(dict.fromkeys(RequestLogQuery.model_fields))
    assert nothing == RequestLogQuery.model_validate({})
    assert filter_condition(nothing.filter_group).is_empty


def test_a_direction_needs_something_to_sort_by_and_not_the_other_way_round() -> None:
    status, message = refusal(sort_order="asc")
    assert (status, message.split(": ")[0]) == (400, "sort_by")
    assert RequestLogQuery.model_validate({"sort_by": "cost"}).sort_order is None


@pytest.mark.parametrize(
    ("text", "start", "width"),
    [
        ("1970-01-01", 0, 86_400_000_000),
        ("1970-01-01T00:00:00Z", 0, 1),
        ("1970-01-01t00:00", 0, 1),
        ("1970-01-01 01:00:00.5+0100", 500_000, 1),
        ("2100-01-01T05:30:00.1234567+05:30", 4_102_444_800_123_456, 1),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000_000, 1),
        ("9999-12-31", 253_402_214_400_000_000, 86_400_000_000),
    ],
)
def test_a_time_is_a_range_of_microseconds(text: str, start: int, width: int) -> None:
    assert parse_moment(text) == (start, start + width)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (42, "42"),
        (42.0, "42"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (1e16, "10000000000000000"),
        (1e21, "1e21"),
        (-2.5e300, "-2.5e300"),
        ("42.0", "42.0"),
    ],
)
def test_a_scalar_is_the_text_that_clickhouse_makes_of_it(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_values_are_bound_and_never_spliced() -> None:
    hostile = "x') OR 1=1 -- {f0:String} \\"
    query = {
        "filters": [
            engine("is", hostile),
            {"field": "tags", "operator": "in", "value": [hostile]},
            {"field": "metadata", "operator": "key_contains", "nested_key": hostile, "value": hostile},
        ]
    }
    condition = filter_condition(RequestLogQuery.model_validate({"filter_group": query}).filter_group)
    assert "OR 1=1" not in condition.sql
    assert hostile in condition.parameters.values()


def test_the_page_of_the_api_lists_exactly_the_table() -> None:
    schemas = Filter.model_json_schema()["$defs"]
    assert schemas["FilterField"]["enum"] == list(BY_NAME)
    assert schemas["FilterOperator"]["enum"] == list(ALL_OPERATORS)
    assert [field.name for field in ANALYTICS_META.fields] == list(BY_NAME)


def test_the_reference_holds_the_table_as_it_is() -> None:
    assert markdown_table() in (ROOT / "docs/analytics.md").read_text()


def test_the_example_of_the_reference_is_valid() -> None:
    text = (ROOT / "docs/analytics.md").read_text()
    for block in text.split("```json")[1:]:
        body = json.loads(block.split("```")[0])
        (CustomAnalyticsQuery if "customCharts" in body else RequestLogQuery).model_validate(body)
