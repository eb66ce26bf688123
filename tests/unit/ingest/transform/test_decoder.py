import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.transform.decoder import (
    EVENT_SCHEMA,
    JSON_FIELDS,
    Decoded,
    Decoder,
    Rejection,
    decode_one,
)
from ingest.transform.strict_json import MAX_EVENT_BYTES
from tests.support.events import MINIMAL, ODD_VALUES, event_bytes


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder()


def encode(**fields: Any) -> bytes:
    return json.dumps({**MINIMAL, **fields}).encode()


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """JSON text is compared by what it says, everything else as it is."""
    parsed = dict(row)
    for field in JSON_FIELDS:
        text = row[field]
        parsed[field] = json.loads(text) if text.startswith(("{", "[")) and _is_json(text) else text
    return parsed


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def assert_agrees_with_the_model(decoded: Decoded, values: list[bytes | None]) -> None:
    rows = {row["row_index"]: row for row in decoded.events.to_pylist()}
    rejections = {rejection.row_index: rejection for rejection in decoded.rejections}
    assert sorted([*rows, *rejections]) == list(range(len(values)))
    assert list(rows) == sorted(rows)
    for row_index, value in enumerate(values):
        expected = decode_one(row_index, value)
        if isinstance(expected, Rejection):
            assert rejections[row_index] == expected
        else:
            canonical = pa.Table.from_pylist([expected], EVENT_SCHEMA).to_pylist()[0]
            assert comparable(rows[row_index]) == comparable(canonical)


@given(values=st.lists(event_bytes(), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_batch_and_model_agree_on_what_is_valid_and_on_every_value(decoder: Decoder, values: list[bytes]) -> None:
    assert_agrees_with_the_model(decoder.decode(values), list(values))


@given(values=st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_either_an_event_or_a_rejection(decoder: Decoder, values: list[bytes | None]) -> None:
    assert_agrees_with_the_model(decoder.decode(values), values)


def test_every_odd_value_in_every_field_is_judged_like_the_model_does(decoder: Decoder) -> None:
    values: list[bytes | None] = [
        json.dumps({**MINIMAL, field: value}).encode() for field in EVENT_SCHEMA.names[1:] for value in ODD_VALUES
    ]
    decoded = decoder.decode(values)
    assert_agrees_with_the_model(decoded, values)
    assert len(decoded.events) > 500
    assert len(decoded.rejections) > 500


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        pytest.param(None, "empty", "", id="tombstone"),
        pytest.param(b"", "empty", "", id="no bytes"),
        pytest.param(b"{", "json_invalid", "", id="malformed JSON"),
        pytest.param(b"[1]", "model_type", "", id="not an object"),
        pytest.param(b'{"request_id": "\xff"}', "json_invalid", "", id="invalid UTF-8"),
        pytest.param(encode()[:-1] + b"\0}", "json_invalid", "", id="NUL byte"),
        pytest.param(encode(user_id="a\0b"), "nul_character", "user_id", id="NUL escaped"),
        pytest.param(encode(model_name=None), "string_type", "model_name", id="required is null"),
        pytest.param(encode(request_id=""), "string_too_short", "request_id", id="empty request id"),
        pytest.param(encode(request_id="x" * 129), "string_too_long", "request_id", id="long request id"),
        pytest.param(encode(input_tokens="5"), "int_type", "input_tokens", id="number as text"),
        pytest.param(encode(input_tokens=-1), "greater_than_equal", "input_tokens", id="negative count"),
        pytest.param(encode(input_tokens=10**12), "less_than_equal", "input_tokens", id="huge count"),
        pytest.param(encode(duration_ms=1.5), "int_type", "duration_ms", id="fraction of a count"),
        pytest.param(encode(timestamp="2026-11-21T10:00:00"), "timestamp_format", "timestamp", id="no zone"),
        pytest.param(encode(timestamp="1969-12-31T23:59:59Z"), "timestamp_range", "timestamp", id="year 1969"),
        pytest.param(encode(timestamp="2014-12-31T23:59:59Z"), "timestamp_range", "timestamp", id="year 2014"),
        pytest.param(encode(timestamp=1_763_719_200), "timestamp_range", "timestamp", id="seconds"),
        pytest.param(encode(timestamp="9999-01-01T00:00:00Z"), "timestamp_range", "timestamp", id="year 9999"),
        pytest.param(encode(tags=["a", 1]), "string_type", "tags[1]", id="number among tags"),
        pytest.param(encode(metadata=[1]), "dict_type", "metadata", id="metadata no object"),
        pytest.param(encode(metadata={"a": {"b": 1}, "a.b": 2}), "path_collision", "metadata", id="same path twice"),
        pytest.param(encode(request_body=5), "body_type", "request_body", id="body is a number"),
        pytest.param(encode(cached_input_tokens=5, input_tokens=4), "cache_exceeds_input", "", id="cache above input"),
        pytest.param(b'{"a":' * 300 + b"1" + b"}" * 300, "json_invalid", "", id="deep nesting"),
        pytest.param(encode(request_body="x" * MAX_EVENT_BYTES), "too_large", "", id="over the size limit"),
    ],
)
def test_rejection_names_the_reason_and_the_field(decoder: Decoder, value: bytes, reason: str, field: str) -> None:
    decoded = decoder.decode([encode(), value, encode()])
    assert [(rejection.row_index, rejection.reason, rejection.field) for rejection in decoded.rejections] == [
        (1, reason, field)
    ]
    assert decoded.events["row_index"].to_pylist() == [0, 2]


@pytest.mark.parametrize(
    ("timestamp", "guess"),
    [
        pytest.param(1_763_719_200, "; 1763719200 looks like seconds, the field takes milliseconds", id="seconds"),
        pytest.param(1_420_070_400, "; 1420070400 looks like seconds, the field takes milliseconds", id="first second"),
        pytest.param(1_420_070_399, "", id="a second before"),
        pytest.param(1_763_719_200_000_000, "; 1763719200000000 looks like microseconds, the", id="microseconds"),
        pytest.param(1_763_719_200_000_000_000, "; 1763719200000000000 looks like nanoseconds, the", id="nanoseconds"),
        pytest.param(1_420_070_399_999, "", id="2014 in milliseconds"),
        pytest.param(4_102_444_800_000, "", id="2100 in milliseconds"),
        pytest.param(0, "", id="nothing"),
        pytest.param(-1, "", id="before 1970"),
        pytest.param(10**30, "", id="beyond any unit"),
        pytest.param("1970-01-21T09:55:19Z", "", id="text"),
    ],
)
def test_a_time_out_of_range_is_refused_with_the_unit_that_it_looks_like(timestamp: Any, guess: str) -> None:
    [rejection] = Decoder().decode([encode(timestamp=timestamp)]).rejections
    assert (rejection.reason, rejection.field) == ("timestamp_range", "timestamp")
    assert rejection.message.startswith(f"must be from 2015-01-01 up to, not including, 2100-01-01{guess}")
    assert ("looks like" in rejection.message) == bool(guess)


@pytest.mark.parametrize("first", [1_420_070_400_000, "2015-01-01T00:00:00Z", "2015-01-01T01:00:00+01:00"])
def test_the_first_moment_of_2015_is_a_time(first: int | str) -> None:
    [row] = Decoder().decode([encode(timestamp=first)]).events.to_pylist()
    assert row["timestamp"] == datetime(2015, 1, 1, tzinfo=UTC)


def test_unknown_fields_are_ignored_and_counted(decoder: Decoder) -> None:
    decoded = decoder.decode([encode(new_field=1, other=[1]), encode(new_field="x"), encode()])
    assert len(decoded.events) == 3
    assert decoded.unknown_fields == {"new_field": 2, "other": 1}


def test_the_last_of_a_repeated_field_counts(decoder: Decoder) -> None:
    decoded = decoder.decode([encode(input_tokens=1)[:-1] + b', "input_tokens": 2}'])
    assert decoded.events["input_tokens"].to_pylist() == [2]


@pytest.mark.parametrize(
    ("field", "spelling"),
    [
        pytest.param("input_tokens", b"-0", id="minus zero"),
        pytest.param("prompt_id", b"-0", id="minus zero as text"),
        pytest.param("prompt_id", b"12345678901234567890123", id="long number as text"),
        pytest.param("timestamp", b'"1763719200000"', id="milliseconds in quotes"),
        pytest.param("timestamp", rb'"\u0031763719200000"', id="milliseconds in quotes, escaped"),
        pytest.param("timestamp", b"-0", id="minus zero milliseconds"),
        pytest.param("user_id", b"null", id="null"),
        pytest.param("request_body", rb'"{\"a\": 1e999}"', id="JSON in a text"),
        pytest.param("request_body", b'{"a": "\xff"}', id="invalid UTF-8 in a body"),
        pytest.param("stranger", rb'"\ud800"', id="half a surrogate pair in an unknown field"),
        pytest.param("tags", b'["a", null]', id="null among tags"),
        pytest.param("usage", b'{"web_searches": 2}', id="usage"),
    ],
)
def test_unusual_spellings_are_judged_like_the_model_does(decoder: Decoder, field: str, spelling: bytes) -> None:
    repeated = encode(**{field: "x"})[:-1] + b', "%s": %s}' % (field.encode(), spelling)
    single = json.dumps({**MINIMAL, field: 0}).encode().replace(b": 0}", b": %s}" % spelling)
    if field in MINIMAL:
        single = encode().replace(json.dumps(MINIMAL[field]).encode(), spelling)
    values: list[bytes | None] = [repeated, single, encode()]
    assert_agrees_with_the_model(decoder.decode(values), values)


@pytest.mark.parametrize("field", ["request_headers", "response_headers"])
def test_values_of_secret_headers_are_masked_in_every_shape(decoder: Decoder, field: str) -> None:
    shapes: list[Any] = ["s3cret", 's3"c\\ret', ["s3cret"], {"a": "s3cret"}, 53, None]
    names = [
        "Authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "X-Goog-Api-Key",
        "x_auth_token",
    ]
    values = [encode(**{field: {name: shape, "accept": "text"}}) for name in names for shape in shapes]
    decoded = decoder.decode(values)
    assert not decoded.rejections
    for text, name in zip(decoded.events[field].to_pylist(), [name for name in names for _ in shapes], strict=True):
        assert json.loads(text) == {name: "[redacted]", "accept": "text"}


def test_headers_that_only_sound_secret_are_kept(decoder: Decoder) -> None:
    headers = {"x-ratelimit-remaining-tokens": "5", "note": 'say "authorization":"x"', "tokens": "1"}
    decoded = decoder.decode([encode(request_headers=headers)])
    assert json.loads(decoded.events["request_headers"][0].as_py()) == headers


def test_a_batch_of_ten_thousand_poison_records_is_rejected_one_by_one(decoder: Decoder) -> None:
    decoded = decoder.decode([b"\xff"] * 10_000 + [encode()])
    assert len(decoded.rejections) == 10_000
    assert len(decoded.events) == 1


@pytest.mark.parametrize("field", ["metadata", "llm_parameters", "request_headers", "input_variables"])
def test_objects_that_repeat_are_judged_each_time_as_the_first_time(decoder: Decoder, field: str) -> None:
    objects = [
        b'{"a":1}', b'{"a": 1}', b'{"a":1.0}', b"null", b"[]", b'"{}"', b"{}", b'{"a":1e999}', b'{"authorization":"s"}',
        json.dumps({"deep": "x" * 600}).encode(), b'{"a.b":1,"a":{"b":2}}', b'{"a":' * 200 + b"1" + b"}" * 200,
    ]  # fmt: skip
    values: list[bytes | None] = [encode()[:-1] + b',"%s":%s}' % (field.encode(), each) for each in objects * 3]
    decoded = decoder.decode(values)
    assert_agrees_with_the_model(decoded, values)
    assert {rejection.row_index for rejection in decoded.rejections}


@pytest.mark.parametrize("field", ["request_body", "response_body", "llm_parameters", "metadata", "request_headers"])
@pytest.mark.parametrize("levels", [2, 97, 98, 99, 100, 101, 150])
def test_many_values_side_by_side_are_no_nesting_and_nesting_is_found_among_them(
    decoder: Decoder, field: str, levels: int
) -> None:
    """Objects and arrays, empty or around a scalar, at the start and at the end of a hundred shallow ones."""
    flat = [{"role": "user", "content": [{"text": "[{"}]}] * 60
    opening, closing = '{"a":' * (levels // 2) + "[" * (levels - levels // 2), "]" * (levels - levels // 2)
    values: list[bytes | None] = []
    for inside in ("", "1", "{}", "[]", '"x"'):
        deep = opening + inside + closing + "}" * (levels // 2)
        for members in (f'"deep":{deep},"flat":{json.dumps(flat)}', f'"flat":{json.dumps(flat)},"deep":{deep}'):
            values.append(encode()[:-1] + f',"{field}":{{{members}}}}}'.encode())
    assert_agrees_with_the_model(decoder.decode(values), values)


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({".".join("a" * 101): 1}, id="one key of many dots"),
        pytest.param({"a.b": {"c.d": {".".join("e" * 97): 1}}}, id="dots at each level"),
        pytest.param({".".join("a" * 60): [{".".join("b" * 60): 1}]}, id="dots inside an array"),
    ],
)
def test_a_dot_in_a_key_of_metadata_is_a_level_of_nesting(decoder: Decoder, metadata: dict[str, Any]) -> None:
    values: list[bytes | None] = [encode(metadata=metadata), encode(metadata={".".join("a" * 90): 1})]
    decoded = decoder.decode(values)
    assert_agrees_with_the_model(decoded, values)
    assert [(each.row_index, each.reason) for each in decoded.rejections] == [(0, "too_deep")]
