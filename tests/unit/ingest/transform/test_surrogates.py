"""Half an emoji in a JSON text is stored as U+FFFD, whichever way the event comes."""

import json
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.producer.event_publisher import records_of
from ingest.transform.conversation import parse
from ingest.transform.decoder import EVENT_SCHEMA, Decoder, decode_one
from ingest.transform.enrichment import with_derived
from ingest.transform.strict_json import StrictDecoder
from ingest.transform.surrogates import without_lone_surrogates
from tests.support.events import MINIMAL
from tests.unit.ingest.transform.test_decoder import assert_agrees_with_the_model

TEXT_FIELDS = ("error_message", "request_id", "response_body_raw")
# Texts of JavaScript and Java: any UTF-16 unit may stand next to any other.
utf16_texts = st.lists(
    st.sampled_from(
        ["\ud83d", "\ude00", "\udbff", "\udc00", "\\", "u", "d83d", '"', "\n", "é", "a", "\u2028", "\ufffd"]
    )
    | st.characters(min_codepoint=0xD7FF, max_codepoint=0xE000),
    min_size=1,
    max_size=12,
).map("".join)


def encode(**fields: Any) -> bytes:
    """JSON in ASCII: every surrogate is an escape."""
    return json.dumps({**MINIMAL, **fields}).encode()


def stored(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", json.loads(json.dumps(text)))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"\uDE00", "\ufffd"),
        (rb"half \ud83d\n", "half \ufffd\n"),
        (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\uD83D\uDE00", "😀"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d", "\\\ufffd"),
    ],
)
def test_a_surrogate_without_a_partner_becomes_the_replacement_character(written: bytes, read: str) -> None:
    assert json.loads(without_lone_surrogates(b'"' + written + b'"')) == read


@given(text=utf16_texts)
@settings(deadline=None)
def test_both_paths_read_any_utf16_text_alike(text: str) -> None:
    values = [encode(**{field: text}) for field in TEXT_FIELDS]
    values += [encode(metadata={text: [text]}, response_body={"a": text}, tags=[text], request_headers={text: text})]
    values += [encode(**{text: text, "x" + text: {text: 1}})]
    decoder = Decoder()
    decoded = decoder.decode(values)
    assert_agrees_with_the_model(decoded, list(values))
    assert not decoded.rejections
    assert decoded.events["error_message"][0].as_py() == stored(text)
    # Nothing is left to the slow path but what it is there for.
    assert all(StrictDecoder().read(value, decoded.unknown_fields) for value in values)


def test_unknown_fields_are_counted_once_where_a_text_is_repaired() -> None:
    decoded = Decoder().decode([encode(new_field="x", error_message="\ud83d", metadata={"a": "\ud83d"})])
    assert decoded.unknown_fields == {"new_field": 1}


def test_over_http_the_event_is_taken_as_it_came_with_its_whole_batch() -> None:
    lines = [encode(request_id="a\ud83d", input_tokens=5), encode(request_id="b")]
    records = records_of(b"\n".join(lines), is_ndjson=True, check_size=lambda key, value: None)
    assert records == [("a\ufffd".encode(), lines[0]), (b"b", lines[1])]
    row = decode_one(0, lines[0])
    assert isinstance(row, dict)
    assert (row["request_id"], row["input_tokens"]) == ("a\ufffd", 5)


def test_a_body_that_is_text_is_read_too() -> None:
    assert parse(r'{"a": "\ud83d"}') == {"a": "\ufffd"}
    answer = r'{"choices": [{"message": {"role": "assistant", "content": "half \ud83d"}}]}'
    row = decode_one(0, encode(response_body_raw=answer))
    events = with_derived(pa.Table.from_pylist([row], EVENT_SCHEMA))
    assert events["output_text"].to_pylist() == ["half \ufffd"]
