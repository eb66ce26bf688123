"""What `q` finds, and in which order, against a plain reading of its rule over texts that went through Kafka."""

import json
import os
import random
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.analytics import words
from api.analytics.search import limits
from api.security.permissions import Caller, Restriction, Scope
from tests.integration.api.analytics.test_search import key, public_ids, walk
from tests.support.analytics import words as tokens
from tests.support.analytics_stack import Analytics, Event, analytics_over
from tests.support.api import client_as
from tests.support.rows import Row

UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

EXAMPLES = int(os.environ.get("ANALYTICS_EXAMPLES", "60"))
VOCABULARY = (
    "refund", "refunds", "refunded", "refudn", "refnd", "reffund", "refuns", "refun", "efund", "erfund", "policy",
    "police", "polity", "pol", "order", "orders", "border", "ordre", "access", "acess", "acces", "accesses", "12345",
    "12346", "123456", "a", "an", "and", "École", "écoles", "école", "don’t", "日本語", "naïve", "x1y2z3", "x1y2z4",
)  # fmt: skip


def texts(count: int) -> Iterator[Event]:
    rng = random.Random(5)
    for number in range(count):
        asked, told = (" ".join(rng.choices(VOCABULARY, k=rng.randrange(4))) for _ in range(2))
        # Half of them share one of five times with others.
        hours = rng.randrange(40)
        own = timedelta(hours=hours, microseconds=number)
        moment = datetime(2026, 5, 1, tzinfo=UTC) + (own if number % 2 else timedelta(hours=hours // 8 * 8))
        yield {
            "request_id": f"text-{number}",
            "timestamp": moment.isoformat(),
            "model_name": rng.choice(("gpt-4o", "gpt-4o-mini")),
            "user_id": rng.choice(("alice", "bob")),
            "status": "success",
            "input_tokens": (None, 5, 9)[number % 3],
            "request_body": {"messages": [{"role": "user", "content": asked}]},
            "response_body": {"choices": [{"message": {"role": "assistant", "content": told}}]},
        }


@pytest.fixture(scope="module")
def found(broker: str, engine_url: str) -> Iterator[Analytics]:
    with analytics_over(broker, engine_url, list(texts(150))) as analytics:
        yield analytics


def distance(one: str, other: str) -> int:
    """How many letters are missing, too much, wrong, or have changed places with their neighbour."""
    rows = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one) + 1):
        for j in range(len(other) + 1):
            if not i or not j:
                rows[i][j] = i + j
                continue
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (one[i - 1] != other[j - 1]))
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


def closeness(word: str, token: str) -> int | None:
    """0 the same, 1 begins with it, 2 begins with it but for a typo, None is another word."""
    if token.startswith(word):
        return int(token != word)
    if len(word) < 5 or any(letter.isdigit() for letter in word):
        return None
    for length in range(len(word) - 1, len(word) + 2):
        begin = token[:length]
        is_end_right = begin[-1:] == word[-1] or begin == word[:-2] + word[-1] + word[-2]
        if distance(begin, word) <= 1 and (begin == token or is_end_right):
            return 2
    return None


def rank(row: Row, q: str) -> int | None:
    """How far the farthest word is; None when a word is missing."""
    known = tokens(row["input_text"]) | tokens(row["output_text"])
    ranks = [
        min((near for token in known if (near := closeness(word, token)) is not None), default=None)
        for word in tokens(q)
    ]
    return None if None in ranks else max(near for near in ranks if near is not None)


def expected(rows: list[Row], q: str) -> list[Row]:
    ranked = [(place, row) for row in rows if (place := rank(row, q)) is not None]
    newest_first = sorted(ranked, key=lambda pair: key(pair[1]), reverse=True)
    return [row for _, row in sorted(newest_first, key=lambda pair: pair[0])]


@st.composite
def typed(draw: st.DrawFn) -> str:
    """A word as somebody types it: whole, begun, in capitals, or with something wrong."""
    word = draw(st.sampled_from(VOCABULARY))
    letter = draw(st.sampled_from(string.ascii_lowercase))
    place = draw(st.integers(0, len(word)))
    typos = (
        word,
        word.upper(),
        word[: max(1, place)],
        word[:place] + letter + word[place:],
        word[:place] + word[place + 1 :] or word,
        word[:place] + letter + word[place + 1 :],
        word[:place] + word[place : place + 2][::-1] + word[place + 2 :],
    )
    return draw(st.sampled_from(typos))


@given(st.lists(typed(), min_size=1, max_size=3), st.sampled_from((" ", ", ", "-", "  \n")))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=UNCHECKED)
def test_words_find_what_their_rule_says_closest_first(found: Analytics, typed: list[str], between: str) -> None:
    q = between.join(typed)
    assert walk(found, 25, q=q) == public_ids(expected(found.rows, q))


@pytest.mark.parametrize("per_page", [1, 3, 7])
@pytest.mark.parametrize(("few", "count_limit"), [(500, 10_000), (0, 10_000), (0, 150)])
def test_pages_go_on_from_closer_to_farther_texts(
    found: Analytics, monkeypatch: pytest.MonkeyPatch, per_page: int, few: int, count_limit: int
) -> None:
    """In each of the ways that few, many and too many matches are read."""
    monkeypatch.setattr(limits, "FEW", few)
    monkeypatch.setattr(limits, "COUNT_LIMIT", min(count_limit, len(expected(found.rows, "refund"))))
    wanted = expected(found.rows, "refund")
    assert {rank(row, "refund") for row in wanted} == {0, 1, 2}
    assert walk(found, per_page, q="refund") == public_ids(wanted)


@pytest.mark.parametrize("few", [500, 3, 0])
@pytest.mark.parametrize("is_filtered", [False, True])
def test_rare_words_beside_common_ones_find_what_both_say(
    found: Analytics, monkeypatch: pytest.MonkeyPatch, few: int, is_filtered: bool
) -> None:
    """Few texts have the rare words, more than few, or none is looked up that way."""
    rare, common, limit = ("12346", "x1y2z3", "日本語"), ("a", "refund", "access"), 25
    assert all(len(expected(found.rows, word)) * 1.5 < limit for word in rare)
    assert all(len(expected(found.rows, word)) > limit for word in common)
    monkeypatch.setattr(limits, "FEW", few)
    monkeypatch.setattr(limits, "COUNT_LIMIT", limit)
    tree = {"filters": [{"field": "engine", "operator": "is", "value": "gpt-4o"}]} if is_filtered else None
    rows = [row for row in found.rows if not is_filtered or row["model_name"] == "gpt-4o"]
    assert any(len(expected(rows, f"{one} {other}")) > 3 for one in rare for other in common)
    for one in rare:
        for other in common:
            wanted = public_ids(expected(rows, f"{one} {other}"))
            assert walk(found, 4, q=f"{other} {one}", filter_group=tree) == wanted
            in_order = public_ids(sorted(expected(rows, f"{one} {other}"), key=key))
            assert walk(found, 4, q=f"{other} {one}", filter_group=tree,
                        sort_by="request_start_time", sort_order="asc") == in_order  # fmt: skip


def test_words_and_filters_must_both_hold(found: Analytics) -> None:
    tree = {
        "filters": [
            {"field": "engine", "operator": "is", "value": "gpt-4o"},
            {"field": "request_start_time", "operator": "before", "value": "2026-05-02"},
        ]
    }
    rows = [row for row in found.rows if row["model_name"] == "gpt-4o" and row["timestamp"].day == 1]
    assert 2 < len(expected(rows, "orders")) < len(expected(found.rows, "orders"))
    assert walk(found, 2, q="orders", filter_group=tree) == public_ids(expected(rows, "orders"))


def test_charts_are_over_what_a_search_with_the_same_words_finds(found: Analytics) -> None:
    chart = {"id": "n", "chartType": "bar", "metric": "count", "groupByField": "engine"}
    for q in ("refund", "ordre polcy", "nothing"):
        (answer,) = found.charts(chart, q=q)
        counts = Counter(row["model_name"] for row in expected(found.rows, q))
        assert {row["label"]: row["value"] for row in answer["data"]} == counts


@pytest.mark.parametrize("q", ["refund", "ordre polcy", "nothing"])
def test_an_overview_is_over_what_a_search_with_the_same_words_finds(found: Analytics, q: str) -> None:
    gpt = {"field": "engine", "operator": "is", "value": "gpt-4o"}
    rows = [row for row in expected(found.rows, q) if row["model_name"] == "gpt-4o"]
    ids = {"field": "pl_id", "operator": "in", "value": [row["request_id"] for row in rows] or ["none"]}
    answer = found.post("analytics", {"q": q, "filter_group": {"filters": [gpt]}})
    assert answer["totalRequests"] == len(rows)
    assert answer["totalRequests"] < found.post("analytics", {"q": q})["totalRequests"] or not rows
    assert answer == found.post("analytics", {"filter_group": {"filters": [ids]}})


def test_an_overview_takes_words_as_a_search_does(found: Analytics) -> None:
    everything = found.post("analytics", {})
    assert everything["totalRequests"] == len(found.rows)
    assert found.post("analytics", {"q": "  "}) == everything
    assert "q" in found.post("analytics", {"q": "?!"}, 400)["message"]


def test_an_order_that_is_asked_for_goes_before_closeness(found: Analytics) -> None:
    rows = sorted(expected(found.rows, "refund"), key=key)
    query: dict[str, Any] = {"q": "refund", "sort_by": "request_start_time", "sort_order": "asc"}
    assert walk(found, 25, **query) == public_ids(rows)


@pytest.mark.parametrize("few", [500, 0])
@pytest.mark.parametrize("is_filtered", [False, True])
@pytest.mark.parametrize("sort_order", ["asc", "desc"])
def test_a_value_that_is_asked_for_goes_before_closeness_and_time(
    found: Analytics, monkeypatch: pytest.MonkeyPatch, sort_order: str, is_filtered: bool, few: int
) -> None:
    """With NULL last either way; many have the same value."""
    monkeypatch.setattr(limits, "FEW", few)
    tree = {"filters": [{"field": "engine", "operator": "is", "value": "gpt-4o"}]} if is_filtered else None
    rows = [row for row in expected(found.rows, "refund") if not is_filtered or row["model_name"] == "gpt-4o"]
    is_descending = sort_order == "desc"
    rows.sort(key=key, reverse=is_descending)
    known = [row for row in rows if row["input_tokens"] is not None]
    known.sort(key=lambda row: row["input_tokens"], reverse=is_descending)
    wanted = public_ids([*known, *(row for row in rows if row["input_tokens"] is None)])
    assert 0 < len(known) < len(wanted)
    assert walk(found, 7, q="refund", filter_group=tree, sort_by="input_tokens", sort_order=sort_order) == wanted


def test_counting_stops_at_a_limit_and_says_so(found: Analytics, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = public_ids(expected(found.rows, "order"))
    monkeypatch.setattr(limits, "FEW", 5)
    monkeypatch.setattr(limits, "COUNT_LIMIT", 7)
    answer = found.post("search", {"q": "order", "page": 2, "per_page": 4})
    assert (answer["total"], answer["total_is_approximate"], answer["pages"]) == (7, True, 2)
    assert [item["id"] for item in answer["items"]] == wanted[4:7]
    assert found.post("search", {"q": "order", "page": 3, "per_page": 4})["items"] == []


def test_a_total_that_is_not_exact_goes_on_with_the_pages(found: Analytics, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = public_ids(expected(found.rows, "order"))
    monkeypatch.setattr(limits, "FEW", 0)
    monkeypatch.setattr(limits, "COUNT_STEP", 5)
    monkeypatch.setattr(limits, "COUNT_LIMIT", 30)
    assert len(wanted) == 37
    for page, total in ((1, 5), (2, 10), (3, 15), (7, 30), (8, 30)):
        answer = found.post("search", {"q": "order", "page": page, "per_page": 4})
        assert (answer["total"], answer["total_is_approximate"]) == (total, True)
        assert answer["has_next"] == (page < 8)
    assert walk(found, 4, q="order") == wanted[:30]
    monkeypatch.setattr(limits, "COUNT_LIMIT", 40)
    assert walk(found, 4, q="order") == wanted


def test_a_word_that_means_too_many_means_the_nearest_and_most_frequent(
    found: Analytics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MAX_MEANINGS", 1)
    told = [tokens(row[name]) for row in found.rows for name in ("input_text", "output_text")]
    longer = {token for each in told for token in each if closeness("refun", token) == 1}
    nearest = max(sorted(longer), key=lambda token: sum(token in each for each in told))
    meant = {"refun", nearest}
    rows = [
        row for row in expected(found.rows, "refun") if meant & (tokens(row["input_text"]) | tokens(row["output_text"]))
    ]
    assert walk(found, 25, q="refun") == public_ids(rows)


def test_who_is_confined_finds_words_of_their_own_requests_only(found: Analytics) -> None:
    rows = [row for row in found.rows if row["user_id"] == "alice"]
    alice = Caller("alice", frozenset({Scope.READ}), Restriction("alice"))
    with client_as(found.warehouse, alice) as client:
        theirs = replace(found, client=client)
        assert walk(theirs, 7, q="refund order") == public_ids(expected(rows, "refund order"))
        tree = {"filters": [{"field": "engine", "operator": "is", "value": "gpt-4o"}]}
        of_model = [row for row in rows if row["model_name"] == "gpt-4o"]
        assert walk(theirs, 7, q="polcy", filter_group=tree) == public_ids(expected(of_model, "polcy"))


def test_who_may_not_read_texts_may_not_search_them(found: Analytics) -> None:
    of_text = {"filters": [{"field": "input_text", "operator": "contains", "value": "refund"}]}
    with client_as(found.warehouse, Caller("no bodies", frozenset({Scope.READ_NO_BODIES}))) as client:
        theirs = replace(found, client=client)
        assert theirs.post("search", {})["total"] == len(found.rows)
        for body in ({"q": "refund"}, {"filter_group": of_text}):
            assert theirs.post("search", body, 403)["success"] is False
        suggested = "/api/public/v2/requests/suggestions"
        for field in ("output_values", "input_variable_values"):
            assert client.get(suggested, params={"field": field, "metadata_key": "a"}).status_code == 403
        asked = {"field": "engine", "filter_group": json.dumps(of_text)}
        assert client.get(suggested, params=asked).status_code == 403
        assert client.get(suggested, params={"field": "engine"}).status_code == 200


def test_on_a_cluster_the_words_are_those_of_the_shards() -> None:
    engine = "Distributed('insights', 'insights_shard', 'request_payloads', source_partition)"
    assert words.dictionary("input_words", engine) == (
        "cluster('insights', mergeTreeTextIndex('insights_shard', 'request_payloads', 'input_words'))"
    )
