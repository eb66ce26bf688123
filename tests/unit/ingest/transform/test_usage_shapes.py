"""Every way in which a response counts, from every seller, whole and streamed: read as what it is, or not at all."""

import json
from decimal import ROUND_HALF_UP, Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.types import ModelInfo, Provider
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.pricing import PriceBook, price_events
from ingest.pricing.catalogue import Listing, find, price_at
from ingest.transform.conversation import answered
from ingest.transform.decoder import EVENT_SCHEMA, decode_one
from ingest.transform.sse import whole_response
from ingest.transform.token_usage import COLUMNS, ExtractionError, extract_usage, with_usage_source
from router_insights.emitter.contract import TOKEN_COLUMNS
from router_insights.emitter.event import MAX_TOKENS, parse_timestamp
from tests.support.events import MINIMAL
from tests.unit.ingest.pricing.test_differential import name_of

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cases" / "usage_shapes.json").read_text())
BODIES = ("response_body", "response_body_raw")


def row_of(**fields: Any) -> dict[str, Any]:
    """An event as it is stored: decoded, with its usage, and priced."""
    row = decode_one(0, json.dumps({**MINIMAL, **fields}).encode())
    assert isinstance(row, dict)
    events = with_usage_source(pa.Table.from_pylist([row], EVENT_SCHEMA))
    costs: dict[str, Any] = price_events(events, PriceBook()).to_pylist()[0]
    event: dict[str, Any] = events.to_pylist()[0]
    return event | costs


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_right_counts_and_the_right_cost_come_out(case: dict[str, Any]) -> None:
    bodies = {name: case[name] for name in BODIES if name in case}
    moment = case.get("timestamp", MINIMAL["timestamp"])
    row = row_of(provider=case["provider"], model_name=case["model"], timestamp=moment, **bodies)
    read = row | {"cost": str(row["cost"]), "usage": json.loads(row["usage"] or "{}")}
    assert {name: read[name] for name in case["right"]} == case["right"]


# Shapes by name, each with the columns that it tells of, and as the messages of a stream.
def counts(
    input_tokens: int, output_tokens: int | None, cached: int | None = None, written: int | None = None,
    thinking: int | None = None, **units: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        "input_tokens": input_tokens, "output_tokens": output_tokens, "cached_input_tokens": cached,
        "cache_creation_input_tokens": written, "thinking_tokens": thinking, "usage": units,
    }  # fmt: skip


CHAT: dict[str, Any] = {
    "object": "chat.completion",
    "usage": {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}  # fmt: skip
IMAGES_IN_CHAT: dict[str, Any] = {
    "object": "chat.completion",
    "usage": {
        "prompt_tokens": 100, "completion_tokens": 1300, "total_tokens": 1400,
        "prompt_tokens_details": {"text_tokens": 20, "image_tokens": 80, "audio_tokens": None},
        "completion_tokens_details": {"image_tokens": 1290, "audio_tokens": 0},
    },
}  # fmt: skip
LITELLM: dict[str, Any] = {
    "object": "chat.completion",
    "usage": {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {
            "audio_tokens": None, "cached_tokens": 60, "cache_creation_tokens": 30,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 30},
        },
        "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30,
        "server_tool_use": {"web_search_requests": 2},
    },
}  # fmt: skip
DEEPSEEK = {
    "object": "chat.completion",
    "usage": {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40,
    },
}  # fmt: skip
BESIDE = {
    "object": "chat.completion",
    "usage": {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 420,
        "completion_tokens_details": {"reasoning_tokens": 300},
    },
}  # fmt: skip
EMBEDDINGS = {"object": "list", "data": [], "usage": {"prompt_tokens": 100, "total_tokens": 100}}
RESPONSES: dict[str, Any] = {
    "object": "response",
    "output": [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
    ],
    "usage": {
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 120,
    },
}  # fmt: skip
REALTIME: dict[str, Any] = {
    "object": "realtime.response",
    "id": "resp_1",
    "usage": {
        "total_tokens": 1900, "input_tokens": 1500, "output_tokens": 400,
        "input_token_details": {
            "text_tokens": 1300, "audio_tokens": 200, "cached_tokens": 1000,
            "cached_tokens_details": {"text_tokens": 960, "audio_tokens": 40},
        },
        "output_token_details": {"text_tokens": 100, "audio_tokens": 300},
    },
}  # fmt: skip
IMAGES = {
    "created": 1,
    "data": [],
    "usage": {
        "total_tokens": 4260, "input_tokens": 100, "output_tokens": 4160,
        "input_tokens_details": {"text_tokens": 20, "image_tokens": 80},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 4160},
    },
}  # fmt: skip
TRANSCRIPTION = {
    "text": "x",
    "usage": {
        "type": "tokens", "total_tokens": 1059, "input_tokens": 1014, "output_tokens": 45,
        "input_token_details": {"text_tokens": 14, "audio_tokens": 1000},
    },
}  # fmt: skip
ANTHROPIC: dict[str, Any] = {
    "type": "message",
    "usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 60, "output_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "server_tool_use": {"web_search_requests": 2},
    },
}  # fmt: skip
GEMINI: dict[str, Any] = {
    "modelVersion": "gemini-2.5-pro",
    "usageMetadata": {
        "promptTokenCount": 100, "candidatesTokenCount": 15, "thoughtsTokenCount": 5, "cachedContentTokenCount": 60,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}, {"modality": "AUDIO", "tokenCount": 30}],
    },
}  # fmt: skip
BEDROCK: dict[str, Any] = {
    "output": {},
    "usage": {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokens": 60, "cacheWriteInputTokens": 30},
}
PLAIN = {"usage": {"input_tokens": 100, "output_tokens": 20}}

FIRST_CHUNK = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "about usage"}}], "usage": None}
ANTHROPIC_START = {
    "type": "message_start",
    "message": {**ANTHROPIC, "usage": ANTHROPIC["usage"] | {"output_tokens": 1, "server_tool_use": None}},
}
ANTHROPIC_END = {
    "type": "message_delta",
    "delta": {},
    "usage": {"output_tokens": 20, "cache_read_input_tokens": 0, "server_tool_use": {"web_search_requests": 2}},
}
GEMINI_START = {
    "usageMetadata": {"promptTokenCount": 100, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}]}
}

SHAPES: dict[str, tuple[Any, list[Any], dict[str, Any]]] = {
    "chat": (CHAT, [FIRST_CHUNK, CHAT], counts(100, 20, 60, 30, 5)),
    "images in chat": (
        IMAGES_IN_CHAT,
        [FIRST_CHUNK, IMAGES_IN_CHAT],
        counts(100, 1300, input_text_tokens=20, input_image_tokens=80, output_image_tokens=1290),
    ),
    "Claude in chat": (
        LITELLM,
        [FIRST_CHUNK, LITELLM],
        counts(100, 20, 60, 30, cache_write_1h_tokens=30, web_searches=2),
    ),
    "DeepSeek": (DEEPSEEK, [FIRST_CHUNK, DEEPSEEK], counts(100, 20, 60)),
    "reasoning beside": (BESIDE, [FIRST_CHUNK, BESIDE], counts(100, 320, thinking=300)),
    "embeddings": (EMBEDDINGS, [EMBEDDINGS], counts(100, None)),
    "responses": (
        RESPONSES,
        [
            {"type": "response.created", "response": {"object": "response", "usage": None, "service_tier": "auto"}},
            {"type": "response.completed", "response": RESPONSES},
        ],
        counts(100, 20, 60, thinking=5, web_searches=1),
    ),
    "realtime": (
        {"type": "response.done", "response": REALTIME},
        [{"type": "response.created", "response": {"object": "realtime.response"}}, {"response": REALTIME}],
        counts(
            1500, 400, 1000, input_text_tokens=1300, input_audio_tokens=200, cache_text_read_tokens=960,
            cache_audio_read_tokens=40, output_text_tokens=100, output_audio_tokens=300,
        ),
    ),
    "images": (
        IMAGES,
        [{"type": "image_generation.partial_image"}, {"type": "image_generation.completed", "usage": IMAGES["usage"]}],
        counts(100, 4160, input_text_tokens=20, input_image_tokens=80, output_image_tokens=4160),
    ),
    "transcription": (
        TRANSCRIPTION,
        [{"type": "transcript.text.delta"}, {"type": "transcript.text.done", **TRANSCRIPTION}],
        counts(1014, 45, input_text_tokens=14, input_audio_tokens=1000),
    ),
    "Anthropic": (
        ANTHROPIC,
        [ANTHROPIC_START, ANTHROPIC_END],
        counts(100, 20, 60, 30, cache_write_5m_tokens=10, cache_write_1h_tokens=20, web_searches=2),
    ),
    "Gemini": (
        GEMINI,
        [GEMINI_START, GEMINI],
        counts(100, 20, 60, thinking=5, input_text_tokens=70, input_audio_tokens=30),
    ),
    "Converse": (BEDROCK, [{"contentBlockDelta": {}}, {"metadata": BEDROCK}], counts(100, 20, 60, 30)),
    "no parts": (PLAIN, [PLAIN], counts(100, 20)),
}  # fmt: skip


def stream(messages: list[Any], line_end: str = "\n") -> str:
    """Server-sent events."""
    lines = [line for each in messages for line in ("event: x", f"data: {json.dumps(each)}", "")]
    return line_end.join([*lines, "data: [DONE]", "", ""])


def extracted(provider: str, model: str, body: str) -> dict[str, Any]:
    found = extract_usage(provider, model, body)
    return found | {"usage": json.loads(found["usage"] or "{}")}


def some_model(seller: Provider) -> str:
    return seller.models[0].id if seller.models else "x"


FORMS = {
    "whole": lambda whole, messages: json.dumps(whole),
    "array": lambda whole, messages: json.dumps(messages),
    "streamed": lambda whole, messages: stream(messages),
    "streamed with CRLF": lambda whole, messages: stream(messages, "\r\n"),
    "streamed with CR": lambda whole, messages: stream(messages, "\r"),
    "streamed without blank lines": lambda whole, messages: "".join(f"data:{json.dumps(each)}\n" for each in messages),
}


@pytest.mark.parametrize(("shape", "form"), list(product(SHAPES, FORMS)))
def test_a_shape_is_read_alike_from_every_seller(shape: str, form: str) -> None:
    whole, messages, expected = SHAPES[shape]
    body = FORMS[form](whole, messages)
    for seller in providers:
        assert extracted(seller.id, some_model(seller), body) == expected, seller.id
    assert extracted("", "nobody knows", body) == expected


def right_cost(seller: Provider, model: ModelInfo, expected: dict[str, Any]) -> Decimal | None:
    """What genai-prices calculates for the columns of a shape; None where they are no usage of the model."""
    units = {unit: expected[column] for unit, column in TOKEN_COLUMNS.items() if expected[column] is not None}
    moment = parse_timestamp(MINIMAL["timestamp"])
    try:
        price = model.calc_price(Usage(**units, **expected["usage"]), seller, genai_request_timestamp=moment)
    except ValueError:
        return None
    return price.total_price.quantize(Decimal("1e-12"), ROUND_HALF_UP)


def test_every_shape_costs_the_right_amount_at_every_seller() -> None:
    """Of each seller a plain model, and one of Claude where it sells one: those come in more shapes than any other."""
    drawn: list[tuple[Provider, ModelInfo, dict[str, Any]]] = []
    rows: list[Any] = []
    for seller in providers:
        sold = [each for each in seller.models if find(seller.id, name_of(seller, each)) == Listing(seller, each)]
        sold = [each for each in sold if price_at(Listing(seller, each), parse_timestamp(MINIMAL["timestamp"]))]
        for model in [*sold[:1], *[each for each in sold if "claude" in each.id][:1]]:
            for whole, messages, expected in SHAPES.values():
                drawn.append((seller, model, expected))
                fields = {"provider": seller.id, "model_name": name_of(seller, model)}
                bodies = {"response_body": whole} if len(drawn) % 2 else {"response_body_raw": stream(messages)}
                rows.append(decode_one(len(rows), json.dumps({**MINIMAL, **fields, **bodies}).encode()))
    events = with_usage_source(pa.Table.from_pylist(rows, EVENT_SCHEMA))
    costs = price_events(events, PriceBook())["cost"].to_pylist()
    for (seller, model, expected), cost in zip(drawn, costs, strict=True):
        right = right_cost(seller, model, expected)
        # Each of five buckets is rounded by half a picodollar at most.
        assert (cost is None) == (right is None), (seller.id, model.id, expected)
        assert right is None or abs(cost - right) <= Decimal("3e-12"), (seller.id, model.id, expected)
    assert len({seller.id for seller, model, _ in drawn if "claude" in model.id}) >= 6
    assert sum(cost is not None for cost in costs) > 500


def test_every_flavor_of_the_catalogue_has_a_shape_here() -> None:
    """`live`, `decisions` and `usage-event` are no responses of a request; the others have tests of their own."""
    flavors = {each.api_flavor for seller in providers for each in seller.extractors or []}
    elsewhere = {"live", "decisions", "systemone", "usage-event", "tokens", "ocr", "ocr_annotated"}
    assert flavors - elsewhere == {"default", "anthropic", "chat", "responses", "realtime", "embeddings", "images"}


@pytest.mark.parametrize(
    ("provider", "model", "body", "expected"),
    [
        pytest.param(
            "perplexity",
            "sonar-deep-research",
            {"usage": {
                "prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196, "citation_tokens": 20016,
                "num_search_queries": 20, "reasoning_tokens": 193967,
            }},
            counts(33, 221146, thinking=193967, output_citation_tokens=20016, web_searches=20),
            id="Perplexity bills beside the completion what its total leaves out",
        ),
        pytest.param(
            "x-ai",
            "grok-4",
            {"usage": {
                "prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 5},
            }},
            counts(100, 25, thinking=5),
            id="xAI without a total counts reasoning beside",
        ),
        pytest.param(
            "openai",
            "gpt-5",
            {"usage": {
                "prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 5},
            }},
            counts(100, 20, thinking=5),
            id="others without a total count it inside",
        ),
        pytest.param(
            "openai",
            "whisper-1",
            {"text": "x", "usage": {"type": "duration", "seconds": 9}},
            {**dict.fromkeys(COLUMNS), "usage": {"audio_seconds": 9, "input_audio_seconds": 9}},
            id="a transcription by the second",
        ),
        pytest.param(
            "cohere",
            "command-r",
            {"usage": {"billed_units": {"input_tokens": 5, "output_tokens": 7}, "tokens": {"input_tokens": 71}}},
            counts(5, 7),
            id="Cohere bills less than it counts",
        ),
        pytest.param(
            "cloudflare",
            "x",
            {"result": {"usage": {"prompt_tokens": 5, "completion_tokens": 7}}, "success": True},
            counts(5, 7),
            id="Cloudflare wraps the result",
        ),
        pytest.param(
            "mistral",
            "mistral-ocr-latest",
            {"pages": [], "usage_info": {"pages_processed": 3}, "document_annotation": None},
            {**dict.fromkeys(COLUMNS), "usage": {"input_document_pages": 3}},
            id="pages that were read",
        ),
        pytest.param(
            "aws",
            "amazon.nova-pro-v1:0",
            {"usage": {"inputTokens": 10, "outputTokens": 20, "cacheReadInputTokenCount": 60}},
            counts(70, 20, 60),
            id="Amazon's own models under InvokeModel",
        ),
        pytest.param(
            "openai",
            "gpt-5",
            {
                "object": "response", "output": [{"type": "web_search_call"}],
                "tool_usage": {"web_search": {"num_requests": 0}}, "usage": {"input_tokens": 1, "output_tokens": 1},
            },
            counts(1, 1),
            id="the number of searches that was told goes before what was put out",
        ),
    ],
)  # fmt: skip
def test_what_only_one_seller_does(provider: str, model: str, body: Any, expected: dict[str, Any]) -> None:
    assert extracted(provider, model, json.dumps(body)) == expected


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param({"input_tokens": 5}, id="half of one"),
        pytest.param({"input_tokens": 5, "output_tokens": 5, "cache_hit_tokens": 4}, id="counts nobody knows"),
        pytest.param(
            {"input_tokens": 5, "output_tokens": 5, "prompt_details": {}, "tokens_saved": 1}, id="one unknown"
        ),
        pytest.param({"prompt_token_count": 5, "generation_token_count": 5}, id="other names"),
        pytest.param({}, id="nothing"),
    ],
)
def test_an_unknown_shape_is_missing_and_never_somebody_else_s(usage: dict[str, Any]) -> None:
    for provider in ("", "openai", "anthropic", "aws", "minimax"):
        with pytest.raises(ExtractionError) as caught:
            extract_usage(provider, "x", json.dumps({"usage": usage}))
        assert caught.value.reason == "unknown_shape"


def test_the_responses_of_a_realtime_session_are_added_up() -> None:
    messages = [{"type": "response.done", "response": {**REALTIME, "id": name}} for name in ("a", "b", "a")]
    found = extracted("openai", "gpt-realtime", json.dumps(messages))
    assert (found["input_tokens"], found["output_tokens"], found["cached_input_tokens"]) == (3000, 800, 2000)
    assert found["usage"]["input_audio_tokens"] == 400


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_cr_and_lf_end_a_line_of_a_stream(separator: str) -> None:
    text = f"line one{separator}line two"
    whole = {**RESPONSES, "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]}
    raw = f"data: {json.dumps({'type': 'response.completed', 'response': whole}, ensure_ascii=False)}\r\n\r\n"
    assert extracted("openai", "gpt-5", raw) == counts(100, 20, 60, thinking=5)
    assert answered(whole_response(raw)).text == text


def test_data_of_several_lines_is_one_document() -> None:
    lines = json.dumps({"type": "response.completed", "response": RESPONSES}, indent=1).split("\n")
    raw = "event: response.completed\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
    assert extracted("openai", "gpt-5", raw) == counts(100, 20, 60, thinking=5, web_searches=1)
    assert whole_response(raw) == RESPONSES


@pytest.mark.parametrize("broken", ['data: {"usage": {"prompt_tok', "data: {usage}", 'data: {"usage": "\\ud83d'])
def test_one_unreadable_line_does_not_lose_what_the_others_tell(broken: str) -> None:
    lines = stream([FIRST_CHUNK, CHAT]).split("\n\n")
    for place in range(len(lines)):
        raw = "\n\n".join([*lines[:place], broken, *lines[place:]])
        assert extracted("openai", "gpt-5", raw) == counts(100, 20, 60, 30, 5)
    with pytest.raises(ExtractionError) as caught:
        extract_usage("openai", "gpt-5", broken)
    assert caught.value.reason == "unreadable"


@settings(deadline=None)
@given(st.permutations([0, 7, 20]), st.sampled_from(["prompt_tokens", "completion_tokens"]))
def test_counts_of_a_stream_never_fall(told: list[int], name: str) -> None:
    messages = [{"usage": {"prompt_tokens": 100, "completion_tokens": 30, name: count}} for count in told]
    found = extracted("openai", "gpt-5", stream(messages))
    most = max(told)
    assert (found["input_tokens"], found["output_tokens"]) == ((most, 30) if name == "prompt_tokens" else (100, most))


# The service tier


TIERS = [
    pytest.param({**CHAT, "service_tier": "flex"}, "flex", id="OpenAI"),
    pytest.param({**RESPONSES, "service_tier": "priority"}, "priority", id="OpenAI responses"),
    pytest.param({**CHAT, "service_tier": "default"}, "default", id="OpenAI's plain one"),
    pytest.param({**ANTHROPIC, "usage": {**ANTHROPIC["usage"], "service_tier": "batch"}}, "batch", id="Anthropic"),
    pytest.param(
        {**ANTHROPIC, "usage": {**ANTHROPIC["usage"], "service_tier": "standard", "speed": "fast"}},
        "fast",
        id="Anthropic's fast mode",
    ),
    pytest.param(
        {"usageMetadata": {**GEMINI["usageMetadata"], "serviceTier": "SERVICE_TIER_FLEX"}}, "flex", id="Gemini"
    ),
    pytest.param({**BEDROCK, "serviceTier": {"type": "priority"}}, "priority", id="Bedrock"),
]


@pytest.mark.parametrize(("body", "served"), TIERS)
@pytest.mark.parametrize("reported", [{}, {"input_tokens": 3, "output_tokens": 1}], ids=["extracted", "reported"])
@pytest.mark.parametrize("asked", ["", "priority", "auto"])
def test_the_tier_that_served_is_on_the_row(body: Any, served: str, reported: dict[str, int], asked: str) -> None:
    row = row_of(model_name="gpt-5", service_tier=asked or None, response_body=body, **reported)
    if served == "default" and reported and not asked:
        # Nothing would change: the body is not read.
        served = ""
    assert row["service_tier"] == served
    assert row["input_tokens"] == reported.get("input_tokens", 100)
    raw = row_of(model_name="gpt-5", service_tier=asked or None, response_body_raw=stream([body]), **reported)
    assert raw["service_tier"] == served


@pytest.mark.parametrize(
    ("asked", "body", "stored"),
    [
        ("flex", {"usage": None}, "flex"),
        ("flex", {**CHAT, "service_tier": "auto"}, "flex"),
        ("flex", {**CHAT, "service_tier": None}, "flex"),
        ("flex", {**CHAT, "service_tier": "\ud83d"}, "flex"),
        ("flex", {**CHAT, "service_tier": 5}, "flex"),
        ("flex", {"choices": [{"message": {"content": '{"service_tier": "priority"}'}}]}, "flex"),
        ("batch", {**CHAT, "service_tier": "default"}, "batch"),
        ("flex", "no JSON \"service_tier\": \"priority\"", "flex"),
    ],
)  # fmt: skip
def test_a_response_that_names_no_tier_leaves_what_the_gateway_said(asked: str, body: Any, stored: str) -> None:
    for counted in ({}, {"input_tokens": 3}):
        assert row_of(model_name="gpt-5", service_tier=asked, response_body=body, **counted)["service_tier"] == stored


# Whatever a body holds


numbers = st.integers(0, 2 * 10**9) | st.sampled_from([0, -1, 1.5, 2e9, True, 10**30, float("nan"), float("inf")])
words = st.sampled_from(["message", "compaction", "fallback_message", "advisor_message", "tokens", "duration", "flex"])
NAMES = sorted(
    {name for whole, _, _ in SHAPES.values() for name in json.dumps(whole).split('"') if name.isidentifier()}
    | {"message", "response", "metadata", "result", "iterations", "seconds", "billed_units", "usage_info", "tool_usage"}
    | {"pages_processed", "reasoning_tokens", "service_tier", "speed", "serviceTier", "num_requests"}
)
anything = st.recursive(
    numbers | words | st.none() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)
usages = st.dictionaries(st.sampled_from(NAMES), anything, max_size=10)
mutants = st.sampled_from([shape[0] for shape in SHAPES.values()]).flatmap(
    lambda whole: st.fixed_dictionaries(
        {}, optional={name: st.just(value) | usages | anything for name, value in whole.items()}
    )
)
messages = mutants | st.fixed_dictionaries({"usage": usages}) | anything


def all_numbers(value: Any) -> float:
    """Of each list and object the sum of what it counts."""
    if isinstance(value, dict | list):
        return sum(map(all_numbers, value.values() if isinstance(value, dict) else value))
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and value < 10**12
    return value if is_count else 0


@given(
    body=messages | st.lists(messages, max_size=3),
    form=st.sampled_from(["whole", "stream", "text"]),
    text=st.text(max_size=60),
    provider=st.sampled_from(["", "openai", "anthropic", "x-ai", "perplexity", "google", "aws", "nobody"]),
)
@settings(max_examples=600, deadline=None)
def test_whatever_a_body_holds_nothing_is_invented(body: Any, form: str, text: str, provider: str) -> None:
    each = body if isinstance(body, list) else [body]
    raw = {"whole": json.dumps(body), "stream": stream(each), "text": text}[form]
    try:
        found = extracted(provider, "x", raw)
    except ExtractionError:
        return
    total = all_numbers(body)
    for name, count in [*found.items(), *found["usage"].items()]:
        if name != "usage" and count is not None:
            assert 0 <= count <= total
            assert not name.endswith("_tokens") or (isinstance(count, int) and count <= MAX_TOKENS)
    assert (found["cached_input_tokens"] or 0) + (found["cache_creation_input_tokens"] or 0) <= (
        found["input_tokens"] or 0
    )


@given(body=messages, reported=st.booleans())
@settings(max_examples=200, deadline=None)
def test_whatever_a_body_holds_its_row_can_be_priced(body: Any, reported: bool) -> None:
    counted = {"input_tokens": 5} if reported else {}
    row = row_of(model_name="gpt-5", response_body_raw=json.dumps(body), **counted)
    assert row["usage_source"] in (["reported"] if reported else ["extracted", "missing"])
