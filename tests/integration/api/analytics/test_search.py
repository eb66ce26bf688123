"""Search: the contract's examples, pages and orders against plain Python, and what is refused."""

from typing import Any

import pytest

from tests.support.analytics import holds, value
from tests.support.analytics_stack import Analytics
from tests.support.rows import KEY_NAMES, Row

SORTS = {
    "request_start_time": "timestamp",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cost": "cost",
    "latency_ms": "duration_ms",
    "status": "status",
    "turn_count": "turn_count",
    "tool_call_count": "tool_call_count",
}
IS_ERROR = {"field": "status", "operator": "is", "value": "error"}
FILTERS: list[dict[str, Any]] = [
    {"filters": []},
    {"filters": [IS_ERROR]},
    {"filters": [{"field": "request_start_time", "operator": "before", "value": "2026-03-25"}, IS_ERROR]},
    {"filters": [{"field": "request_start_time", "operator": "after", "value": "2026-03-28T12:00:00+02:00"}]},
    {"logic": "OR", "filters": [IS_ERROR, {"field": "tags", "operator": "contains", "value": "b'c"}]},
    {"filters": [{"field": "output_text", "operator": "contains", "value": "panic"}]},
    {"filters": [{"field": "metadata", "operator": "key_equals", "nested_key": "n", "value": 42}]},
]


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY_NAMES)


def ordered(rows: list[Row], sort_by: str, sort_order: str) -> list[Row]:
    """Ties by the row's key in the same direction, unknown values last in both."""
    column, backwards = SORTS[sort_by], sort_order == "desc"
    known = [row for row in rows if row[column] is not None]
    unknown = [row for row in rows if row[column] is None]
    return sorted(known, key=lambda row: (row[column], *key(row)), reverse=backwards) + sorted(
        unknown, key=key, reverse=backwards
    )


def public_ids(rows: list[Row]) -> list[Any]:
    return [int(row["request_id"]) if row["request_id"].isdigit() else row["request_id"] for row in rows]


def walk(found: Analytics, per_page: int, **query: Any) -> list[Any]:
    """The ids of all pages, each of which is full but the last."""
    ids: list[Any] = []
    page: int | None = 1
    while page is not None:
        answer = found.post("search", {"page": page, "per_page": per_page, **query})
        assert answer["page"] == page
        assert len(answer["items"]) == per_page or not answer["has_next"]
        ids += [item["id"] for item in answer["items"]]
        page = answer["next_num"]
    assert len(ids) == answer["total"]
    return ids


def test_example_1_and_and_sort_is_as_the_contract_has_it(examples: Analytics) -> None:
    tree = {
        "logic": "AND",
        "filters": [
            {"field": "cost", "operator": "gte", "value": 0.1},
            {"field": "request_start_time", "operator": "after", "value": "2025-06-01T00:00:00Z"},
        ],
    }
    answer = examples.post("search", {"filter_group": tree, "sort_by": "cost", "sort_order": "desc"})
    items = answer.pop("items")
    assert answer == {
        "success": True,
        "page": 1,
        "per_page": 10,
        "pages": 1,
        "total": 2,
        "total_is_approximate": False,
        "has_next": False,
        "has_prev": False,
        "next_num": None,
        "prev_num": None,
    }
    assert [item["id"] for item in items] == [1004, 1003]
    wanted = {
        "engine": "claude-sonnet-4-6",
        "provider_type": "anthropic",
        "input_tokens": 400,
        "output_tokens": 200,
        "price": 0.15,
        "latency": 3.0,
        "request_start_time": "2025-06-02T18:00:00.000000Z",
        "request_end_time": "2025-06-02T18:00:03.000000Z",
        "tags_array": ["production"],
        "metadata": [{"environment": "prod", "flag": True}],
        "scores": [],
        "tool_call_count": 2,
        "tool_names": ["search_database", "send_email"],
    }
    assert {name: items[0][name] for name in wanted} == wanted
    assert "prompt_name" not in items[0]


def test_example_5_pages_are_as_the_contract_has_them(examples: Analytics) -> None:
    second = examples.post("search", {"page": 2, "per_page": 2})
    assert [item["id"] for item in second["items"]] == [1003, 1002]
    numbers = {name: second[name] for name in ("page", "pages", "per_page", "total", "next_num", "prev_num")}
    assert numbers == {"page": 2, "pages": 3, "per_page": 2, "total": 5, "next_num": 3, "prev_num": 1}
    assert (second["has_next"], second["has_prev"]) == (True, True)
    third = examples.post("search", {"page": 3, "per_page": 2})
    assert [item["id"] for item in third["items"]] == [1001]
    assert (third["has_next"], third["next_num"], third["prev_num"]) == (False, None, 2)


@pytest.mark.parametrize("page", [4, 10**30])
def test_a_page_beyond_the_end_is_empty(examples: Analytics, page: int) -> None:
    answer = examples.post("search", {"page": page, "per_page": 2})
    assert (answer["items"], answer["total"], answer["has_next"], answer["prev_num"]) == ([], 5, False, page - 1)


@pytest.mark.parametrize(
    ("q", "ids"),
    [
        ("refund", [1005, 1004, 1003, 1002, 1001]),
        ("REFUND policy 30", [1001]),
        ("our refnd", [1001]),
        ("appro", [1002]),
        ("send_email", [1004]),
        ("actve users", [1004]),
        ("nothing of the kind", []),
    ],
)
def test_words_are_looked_for_in_both_texts(examples: Analytics, q: str, ids: list[int]) -> None:
    answer = examples.post("search", {"q": q})
    assert [item["id"] for item in answer["items"]] == ids


@pytest.mark.parametrize("q", [None, "", "  \n"])
def test_a_search_for_nothing_is_no_search_for_words(examples: Analytics, q: str | None) -> None:
    assert examples.post("search", {"q": q})["total"] == 5


def test_every_page_in_every_order_is_what_plain_python_says(analytics: Analytics) -> None:
    for number, sort_by in enumerate(SORTS):
        for sort_order in ("asc", "desc"):
            tree = FILTERS[number % len(FILTERS)]
            rows = ordered([row for row in analytics.rows if holds(row, tree)], sort_by, sort_order)
            ids = walk(analytics, 25, filter_group=tree, sort_by=sort_by, sort_order=sort_order)
            assert ids == public_ids(rows), (sort_by, sort_order)


@pytest.mark.parametrize("tree", FILTERS)
def test_the_newest_go_first_where_nothing_else_is_said(analytics: Analytics, tree: dict[str, Any]) -> None:
    rows = [row for row in analytics.rows if holds(row, tree)]
    assert walk(analytics, 25, filter_group=tree) == public_ids(ordered(rows, "request_start_time", "desc"))


def test_an_item_says_what_its_row_does(analytics: Analytics) -> None:
    rows = {row["request_id"]: row for row in analytics.rows}
    for page in (1, 5, 9):
        for item in analytics.post("search", {"page": page, "per_page": 25, "include_prompt_name": True})["items"]:
            row = rows[str(item["id"])]
            assert item["price"] == (None if row["cost"] is None else float(row["cost"]))
            assert item["latency"] == (None if row["duration_ms"] is None else row["duration_ms"] / 1000)
            assert item["metadata"] == ([row["metadata"]] if row["metadata"] else [])
            assert item["prompt_name"] == (row["prompt_name"] or None)
            for name, field in (("engine", "engine"), ("tags_array", "tags")):
                assert item[name] == value(row, field)
            # As it was sent; filters and groups ignore case.
            assert item["status"] == row["status"]


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"per_page": 26}, 422, "per_page"),
        ({"per_page": 0}, 422, "per_page"),
        ({"page": 0}, 422, "page"),
        ({"page": "1"}, 422, "page"),
        ({"page": 1.5}, 422, "page"),
        ({"include_prompt_name": "yes"}, 422, "include_prompt_name"),
        ({"querry": "x"}, 422, "querry"),
        ({"sort_by": "price", "sort_order": "asc"}, 422, "sort_by"),
        ({"sort_order": "asc"}, 400, "sort_by"),
        ({"q": 7}, 422, "q"),
        ({"q": "?!"}, 400, "q"),
        ({"q": " ".join(f"w{n}" for n in range(21))}, 400, "q"),
        ({"q": "\ud800"}, 422, "q"),
        ({"q": "x" * 10_001}, 422, "q"),
        ({"filter_group": {"filters": [{"field": "cost", "operator": "is", "value": 1}]}}, 400,
         "filter_group.filters[0].operator"),
        ([], 422, ""),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(examples: Analytics, body: Any, status: int, path: str) -> None:
    answer = examples.post("search", body, status)
    assert answer["success"] is False
    assert answer["message"].startswith(path)


def test_nothing_in_a_body_reaches_the_sql(examples: Analytics) -> None:
    for q in ("') OR 1 --", "{q0:Array(String)}", "%s %d", "a\0b", "\\", "'", "х" * 300, "a" * 9_000):
        examples.post("search", {"q": f"word {q}"})
