"""Counts from a provider's response, in the one convention of the contract, whatever the provider's own is."""

import json
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import REGISTRY

from ingest.transform.decoder import EVENT_SCHEMA, decode_one
from ingest.transform.token_usage import ExtractionError, extract_usage, with_usage_source
from tests.integration.ingest.test_sink import encode

CHAT: dict[str, Any] = {
    "object": "chat.completion",
    "model": "gpt-4o",
    "usage": {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}  # fmt: skip
CHAT_BESIDE = {"usage": CHAT["usage"] | {"total_tokens": 125}}
RESPONSES = {
    "object": "response",
    "model": "gpt-5",
    "usage": {
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 5},
    },
}  # fmt: skip
ANTHROPIC: dict[str, Any] = {
    "type": "message",
    "model": "claude-sonnet-4-5",
    "usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 60, "output_tokens": 20,
    },
}  # fmt: skip
GEMINI = {
    "modelVersion": "gemini-2.5-pro",
    "usageMetadata": {
        "promptTokenCount": 100, "candidatesTokenCount": 15, "thoughtsTokenCount": 5, "cachedContentTokenCount": 60,
    },
}  # fmt: skip
BEDROCK = {
    "output": {},
    "usage": {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": 60, "cacheWriteInputTokens": 30},
}
ANTHROPIC_START = {"type": "message_start", "message": ANTHROPIC | {"usage": ANTHROPIC["usage"] | {"output_tokens": 1}}}
ANTHROPIC_DELTA = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 20, "input_tokens": None}}
GEMINI_FIRST = {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 1}}


def stream(*events: Any) -> str:
    lines = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"event: x\ndata: {line}\n\n" for line in lines)


def counts(cached: int | None, written: int | None, thinking: int | None, output: int = 20) -> dict[str, Any]:
    return {
        "input_tokens": 100, "output_tokens": output, "cached_input_tokens": cached,
        "cache_creation_input_tokens": written, "thinking_tokens": thinking, "usage": "",
    }  # fmt: skip


OPENAI_STYLE, ANTHROPIC_STYLE = counts(60, None, 5), counts(60, 30, None)


@pytest.mark.parametrize(
    ("provider", "model", "body", "expected"),
    [
        pytest.param("openai", "gpt-4o", CHAT, OPENAI_STYLE, id="OpenAI chat"),
        pytest.param("openai", "gpt-5", RESPONSES, OPENAI_STYLE, id="OpenAI responses"),
        pytest.param("anthropic", "claude-sonnet-4-5", ANTHROPIC, ANTHROPIC_STYLE, id="Anthropic counts caches apart"),
        pytest.param("google", "gemini-2.5-pro", GEMINI, OPENAI_STYLE, id="Gemini counts thoughts apart"),
        pytest.param("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", BEDROCK, ANTHROPIC_STYLE, id="Converse"),
        pytest.param("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0", ANTHROPIC, ANTHROPIC_STYLE, id="InvokeModel"),
        pytest.param("google", "claude-sonnet-4-5", ANTHROPIC, ANTHROPIC_STYLE, id="Anthropic on Vertex"),
        pytest.param("x-ai", "grok-4", CHAT, OPENAI_STYLE, id="xAI counts thinking inside where the total says so"),
        pytest.param("x-ai", "grok-4", CHAT_BESIDE, counts(60, None, 5, output=25), id="xAI counts thinking apart"),
        pytest.param("groq", "llama-3.3-70b-versatile", CHAT, OPENAI_STYLE, id="OpenAI's way elsewhere"),
        pytest.param("", "who knows", CHAT, OPENAI_STYLE, id="by the shape alone"),
        pytest.param("", "x", stream(CHAT | {"usage": None}, CHAT, "[DONE]"), OPENAI_STYLE, id="stream of chat"),
        pytest.param(
            "",
            "x",
            stream({"type": "response.created", "response": {"usage": None}}, {"response": RESPONSES}),
            OPENAI_STYLE,
            id="stream of responses",
        ),
        pytest.param(
            "",
            "x",
            stream(ANTHROPIC_START, {"delta": {"text": "about usage"}}, ANTHROPIC_DELTA),
            ANTHROPIC_STYLE,
            id="stream of Anthropic",
        ),
        pytest.param("", "x", stream(GEMINI_FIRST, GEMINI), OPENAI_STYLE, id="stream of Gemini"),
        pytest.param("", "x", [GEMINI_FIRST, GEMINI], OPENAI_STYLE, id="array of Gemini"),
    ],
)
def test_every_way_to_count_ends_in_the_one_of_the_contract(
    provider: str, model: str, body: Any, expected: dict[str, Any]
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert extract_usage(provider, model, text) == expected


def test_what_is_charged_apart_is_extracted_too() -> None:
    usage = {
        **ANTHROPIC["usage"],
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
        "server_tool_use": {"web_search_requests": 2},
    }
    found = extract_usage("anthropic", "claude-sonnet-4-5", json.dumps(ANTHROPIC | {"usage": usage}))
    assert json.loads(found["usage"]) == {
        "cache_write_5m_tokens": 20, "cache_write_1h_tokens": 10, "web_searches": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param('{"error": {"message": "overloaded"}}', "no_usage", id="an error"),
        pytest.param("plain text", "no_usage", id="no JSON"),
        pytest.param('{"usage": ', "unreadable", id="cut off"),
        pytest.param('{"usage": {"prompt_tokens": "many", "completion_tokens": 1}}', "unreadable", id="not a number"),
        pytest.param('{"usage": {"prompt_tokens": -1, "completion_tokens": 1}}', "unreadable", id="negative"),
        pytest.param('{"usage": {"prompt_tokens": 2e9, "completion_tokens": 1}}', "inconsistent", id="too many"),
        pytest.param(
            '{"usage": {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}}',
            "inconsistent",
            id="more cached than input",
        ),
        pytest.param("[" * 5000, "unreadable", id="too deep"),
    ],
)
def test_a_response_that_does_not_tell_gives_a_reason(body: str, reason: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        extract_usage("openai", "gpt-4o", body)
    assert caught.value.reason == reason


def test_each_row_says_where_its_counts_come_from() -> None:
    told = json.dumps(CHAT)
    values = [
        encode(output_tokens=0, response_body=told),
        encode(response_body=CHAT),
        encode(response_body_raw=stream(CHAT)),
        encode(usage={"audio_seconds": 3}, response_body=told),
        encode(response_body="{}"),
        encode(),
    ]
    rows = [decode_one(place, value) for place, value in enumerate(values)]
    missing = REGISTRY.get_sample_value("insights_usage_not_extracted_total", {"reason": "no_usage"}) or 0.0
    events = with_usage_source(pa.Table.from_pylist(rows, EVENT_SCHEMA))
    assert events["usage_source"].to_pylist() == [
        "reported", "extracted", "extracted", "reported", "missing", "missing",
    ]  # fmt: skip
    assert events["input_tokens"].to_pylist() == [None, 100, 100, None, None, None]
    assert events["thinking_tokens"].to_pylist() == [None, 5, 5, None, None, None]
    assert REGISTRY.get_sample_value("insights_usage_not_extracted_total", {"reason": "no_usage"}) == missing + 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"usage": ' + '{"a":' * 300 + "1" + "}" * 301, id="nested deeper than a program recurses"),
        pytest.param('{"usage": {"prompt_tokens": 1' + "0" * 400 + ', "completion_tokens": 1}}', id="400 digits"),
        pytest.param(
            '{"type": "message", "usage": {"input_tokens": 1, "output_tokens": 1, "iterations": [{"type": {"a": 1}}]}}',
            id="an object for a word",
        ),
        pytest.param(
            '{"usageMetadata": {"promptTokenCount": 1, "promptTokensDetails": [{"modality": 1, "tokenCount": 1}]}}',
            id="a number for a word",
        ),
        pytest.param('{"service_tier": ["x"], "usage": []}', id="a list for a word"),
    ],
)
@pytest.mark.parametrize("form", ["whole", "streamed"])
def test_whatever_a_response_holds_the_batch_goes_on(body: str, form: str) -> None:
    text = body if form == "whole" else f"data: {body}\n\n"
    rows = [decode_one(0, encode(response_body_raw=text)), decode_one(1, encode(response_body=CHAT))]
    events = with_usage_source(pa.Table.from_pylist(rows, EVENT_SCHEMA))
    assert events["usage_source"].to_pylist()[1] == "extracted"
