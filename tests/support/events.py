"""Strategies for events: valid ones, and ones that are wrong in every way a gateway could get them wrong."""

import json
from typing import Any

from hypothesis import strategies as st

from ingest.transform.strict_json import json_types
from router_insights.emitter.event import FIELD_NAMES

MINIMAL: dict[str, Any] = {
    "request_id": "r-1",
    "timestamp": "2026-11-21T10:00:00Z",
    "model_name": "gpt-4o",
    "status": "success",
}

# The odd corners of JSON and of the columns behind it, besides what hypothesis thinks of by itself.
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, -0.0, 1.0, 1.5, 5, 999, 1000, 2**31, 2**32 - 1, 2**32, 10**9, 10**9 + 1, 2**63, 2**64,
    -(2**63) - 1, 10**400, 1e300, float("inf"), float("nan"),
    "", "x", "5", "a" * 128, "a" * 129, "é" * 128, "😀" * 129, "\0", "a\0b", "'; DROP TABLE request_logs; --",
    '"\\', "%_\\%", "\ud800", "\u2028",
    [], ["a"], ["a", 1], ["a", None], [""], {}, {"a": 1}, {"a": {"b": 1}, "a.b": 2}, {"a": 1, "a.b": 2}, {"": 1},
    {"a": None}, {"a": float("nan")}, {"a": 1e999}, {"a": [{"b": {"c": 1}, "b.c": 2}]}, {"x": "2024-01-01"}, {"a\0": 1},
    {"authorization": "Bearer s3cret", "X-Api-Key": ["s3cret"]}, {"Set-Cookie": 5, "accept": "*/*"},
    "2026-11-21T10:00:00", "2026-11-21T10:00:00.1234567+05:30", "2026-11-21 10:00:00Z", "2026-11-21t10:00:00z",
    "2026-02-30T10:00:00Z", "2026-11-21T24:00:00Z", "1969-12-31T23:59:59Z", "2026-11-21T10:00:60Z",
    "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "2100-01-01T00:00:00Z", "2099-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00+00:01", "2026-11-21T10:00:00+24:00", "2026-11-21T10:00:00-00:60", "2026-11-21T10:00:00.Z",
    "２026-11-21T10:00:00Z", 1_763_719_200_000, 4_102_444_799_999, 4_102_444_800_000,
]  # fmt: skip

free_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
free_objects = st.dictionaries(
    st.sampled_from(["a", "b", "a.b", "env", "x-token", "Cookie"]) | st.text(max_size=4), free_json
)
any_value = st.sampled_from(ODD_VALUES) | free_json


def _fitting(field: str) -> st.SearchStrategy[Any]:
    """Values of the field's own JSON type, most of them valid."""
    if field == "timestamp":
        return st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.integers(0, 5 * 10**12)
    kinds = json_types(field)
    if "integer" in kinds:
        return st.integers(0, 1200) | st.integers(0, 2**33)
    if "object" in kinds:
        return free_objects
    if "array" in kinds:
        return st.lists(st.text(max_size=5), max_size=4)
    return st.text(max_size=20)


@st.composite
def event_objects(draw: st.DrawFn) -> dict[str, Any]:
    """A JSON object: the required fields, some others, a few values of any kind, and now and then a stranger."""
    event = dict(MINIMAL)
    for field in draw(st.lists(st.sampled_from(FIELD_NAMES), max_size=12, unique=True)):
        event[field] = draw(_fitting(field))
    for field in draw(st.lists(st.sampled_from([*FIELD_NAMES, "stranger", "Status"]), max_size=2)):
        event[field] = draw(any_value)
    for field in draw(st.lists(st.sampled_from(FIELD_NAMES[:4]), max_size=1)):
        if draw(st.integers(0, 5)) == 0:
            del event[field]
    return event


@st.composite
def event_bytes(draw: st.DrawFn) -> bytes:
    """An event's JSON text, sometimes spelt in unusual ways, sometimes damaged."""
    event = draw(event_objects())
    text = json.dumps(event, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])))
    raw = text.encode("utf-8", "surrogatepass")
    damage = draw(st.sampled_from(["none", "none", "none", "repeat", "cut", "byte", "prefix", "comma", "deep"]))
    if damage == "repeat":
        field = draw(st.sampled_from(FIELD_NAMES))
        raw = raw.rstrip()[:-1] + b', "%s": %s}' % (field.encode(), json.dumps(draw(any_value)).encode())
    elif damage == "cut":
        raw = raw[: draw(st.integers(0, len(raw)))]
    elif damage == "byte":
        place = draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + bytes([draw(st.integers(0, 255))]) + raw[place + 1 :]
    elif damage == "prefix":
        raw = draw(st.sampled_from([b"\xef\xbb\xbf", b" ", b"\0", b"\n", b"//"])) + raw
    elif damage == "comma":
        raw = raw.rstrip()[:-1] + b",}"
    elif damage == "deep":
        levels = draw(st.sampled_from([49, 50, 98, 99, 100, 101, 150, 199, 201, 2000]))
        deep = draw(st.sampled_from([b"metadata", b"request_body", b"llm_parameters", b"stranger"]))
        opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'{"a":[', b"]}")]))
        raw = raw.rstrip()[:-1] + b', "%s": %s1%s}' % (deep, opening * levels, closing * levels)
    return raw
