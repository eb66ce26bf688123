"""Page tokens come back as they were made, and nothing else is taken for one."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.request_logs.cursor import Cursor, PageTotal, decode, encode

QUERY = {"user_id": "alice", "status": None, "order_by": "timestamp"}
CURSOR = Cursor(None, 1_767_225_600_123_456, "req-1", 1_767_225_600_130, 2, 99)
TOTAL = PageTotal(1234, False)

cursors = st.builds(
    Cursor,
    st.none() | st.integers(0, 2**32 - 1),
    st.integers(0, 4_102_444_800_000_000),
    st.text(),
    st.integers(0, 4_102_444_800_000),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
totals = st.builds(PageTotal, st.integers(0, 2**63), st.booleans())


def refused(query: dict[str, Any], token: str) -> bool:
    with pytest.raises(ApiError) as caught:
        decode(query, token)
    return caught.value.status == 400 and caught.value.details[0].field == "page_token"


@given(cursors, totals)
def test_a_token_comes_back_as_it_was_made(cursor: Cursor, total: PageTotal) -> None:
    assert decode(QUERY, encode(QUERY, cursor, total)) == (cursor, total)


@given(cursors)
def test_a_token_fits_in_a_url_as_it_is(cursor: Cursor) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert set(encode(QUERY, cursor, TOTAL)) <= allowed


@given(st.data())
def test_a_token_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    token = encode(QUERY, CURSOR, TOTAL)
    position = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda char: char != token[position]))
    assert refused(QUERY, token[:position] + other + token[position + 1 :])


def test_a_token_cut_anywhere_or_with_something_added_is_refused() -> None:
    token = encode(QUERY, CURSOR, TOTAL)
    for length in range(1, len(token)):
        assert refused(QUERY, token[:length])
    for extra in ("=", "A", "\n", " "):
        assert refused(QUERY, token + extra)


@pytest.mark.parametrize("change", [{"user_id": "bob"}, {"status": "error"}, {"order_by": "duration_ms"}])
def test_a_token_of_another_query_is_refused(change: dict[str, Any]) -> None:
    assert refused(QUERY | change, encode(QUERY, CURSOR, TOTAL))


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_any_text_that_is_no_token_is_refused(text: str) -> None:
    assert refused(QUERY, text)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([2, [None, 1, "r", 1, 1, 1], [1, False], "0" * 24], id="another version"),
        pytest.param([1, [None, "1; DROP TABLE x", "r", 1, 1, 1], [1, False], "0" * 24], id="text for a number"),
        pytest.param([1, [None, 2**70, "r", 1, 1, 1], [1, False], "0" * 24], id="number out of range"),
        pytest.param([1, [None, 1, "r", 1, 1, 1], [1, False], "0" * 24], id="wrong digest"),
        pytest.param([1, [None, 1, "\ud800", 1, 1, 1], [1, False], "0" * 24], id="half a character"),
        pytest.param({"version": 1}, id="another shape"),
        pytest.param([[[[]]]], id="nested"),
    ],
)
def test_a_forged_token_is_refused(body: Any) -> None:
    forged = base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")
    assert refused(QUERY, forged)
