"""Reads the usage of a response, by the catalogue's units.

A shape is recognised by its own keys, whoever sells the model: gateways pass the counts of Claude on in the shape of
OpenAI, clouds pass those of OpenAI on unchanged. Units follow the event contract: input includes cache reads and
writes, output includes thinking.
"""

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

from genai_prices.data import providers
from genai_prices.data_snapshot import find_provider_by_id

from ingest.transform.response_messages import ExtractionError, web_searches
from ingest.transform.usage_iterations import billed_iterations, iteration_units

Units = dict[str, Any]
# Of each unit, the steps to every place where it may be.
Paths = dict[str, tuple[tuple[str, ...], ...]]

# Types of what Anthropic's Messages API answers, and the keys that only its usage has.
ANTHROPIC_TYPES = ("message", "message_start", "message_delta")
ANTHROPIC_KEYS = frozenset(
    ("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use", "iterations")
)
OPENAI_DETAILS = ("input_tokens_details", "input_token_details")
OPENAI_OBJECTS = ("response", "response.compaction", "realtime.response")
OPENAI_STREAMS = ("response.", "image_generation.", "image_edit.", "transcript.")
# A usage with no more counts than these means the same everywhere.
PLAIN_COUNTS = frozenset(("input_tokens", "output_tokens", "total_tokens"))
MODALITIES = ("text", "audio", "image", "video")


def read_units(response: Mapping[str, Any], seller: str) -> Units:
    """The quantities in `response` (read_response), zeros left out. `seller` is the catalogue's provider id.

    Raises ExtractionError: `no_usage`, `unknown_shape`, or `unreadable` for a count that is none.
    """
    units = _reader(response)(response, seller)
    return {unit: count for unit, count in units.items() if count or unit in ("input_tokens", "output_tokens")}


def _reader(response: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str], Units]:
    if isinstance(response.get("usageMetadata"), Mapping):
        return _gemini
    if _at(response, "usage_info.pages_processed") is not None:
        return _mistral_ocr
    if _billed(response):
        return _cohere
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        raise ExtractionError("no_usage")
    if "inputTokens" in usage:
        return _bedrock
    if "prompt_tokens" in usage:
        return _chat
    if usage.get("type") == "duration":
        return _duration
    return _named_input_tokens(response, usage)


def _named_input_tokens(response: Mapping[str, Any], usage: Mapping[str, Any]) -> Callable[..., Units]:
    """OpenAI and Anthropic both call them so, and mean different things: with and without what is cached."""
    kind = str(response.get("type", ""))
    is_openai = response.get("object") in OPENAI_OBJECTS or kind.startswith(OPENAI_STREAMS)
    if is_openai or not usage.keys().isdisjoint(OPENAI_DETAILS) or usage.get("type") == "tokens":
        return _openai
    if kind in ANTHROPIC_TYPES or not usage.keys().isdisjoint(ANTHROPIC_KEYS):
        return _anthropic
    counts = {name for name in usage if "token" in name or "cache" in name}
    if {"input_tokens", "output_tokens"} <= counts <= PLAIN_COUNTS:
        return _openai
    raise ExtractionError("unknown_shape")


def _at(value: Any, path: str) -> Any:
    return _value(value, path.split("."))


def _value(value: Any, steps: Iterable[str]) -> Any:
    for step in steps:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _count(value: Any) -> Any:
    """A quantity or None. Raises ExtractionError for what is neither."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise ExtractionError("unreadable")
    return value


def _largest(usage: Mapping[str, Any], *paths: str) -> Any:
    """A count that has several names: the largest value under `paths`, None if there is none."""
    return _largest_at(usage, [path.split(".") for path in paths])


def _largest_at(usage: Mapping[str, Any], places: Iterable[Iterable[str]]) -> Any:
    found = [count for steps in places if (count := _count(_value(usage, steps))) is not None]
    return max(found, default=None)


def _openai_paths(whole: tuple[str, str], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Paths:
    """Where each unit is in a usage of OpenAI's: `whole` names the counts of input and output, `inputs` and `outputs`
    the objects with their parts, which are all inside the whole.

    Besides OpenAI's own names: what gateways add for Claude (LiteLLM, OpenRouter, Databricks), DeepSeek's (page
    "Context Caching"), and those of Moonshot, xAI, Qwen and Perplexity.
    """

    def parts(details: tuple[str, ...], *names: str) -> list[str]:
        return [f"{each}.{name}" for each in details for name in names]

    writes = [*parts(inputs, "cache_creation_token_details", "cache_creation"), "cache_creation"]
    paths = {
        "input_tokens": [whole[0]],
        "output_tokens": [whole[1]],
        "cache_read_tokens": [
            *parts(inputs, "cached_tokens", "cache_read_input_tokens"), "cache_read_input_tokens",
            "prompt_cache_hit_tokens", "cached_tokens", "cached_prompt_text_tokens",
        ],
        "cache_write_tokens": [
            *parts(inputs, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
            "cache_creation_input_tokens",
        ],
        "cache_write_5m_tokens": [f"{each}.ephemeral_5m_input_tokens" for each in writes],
        "cache_write_1h_tokens": [f"{each}.ephemeral_1h_input_tokens" for each in writes],
        "output_reasoning_tokens": [*parts(outputs, "reasoning_tokens"), "reasoning_tokens"],
        "web_searches": [
            "server_tool_use.web_search_requests", "num_search_queries", "tool_calls_details.search_web.invocation",
        ],
    }  # fmt: skip
    for each in MODALITIES:
        paths[f"input_{each}_tokens"] = parts(inputs, f"{each}_tokens")
        paths[f"cache_{each}_read_tokens"] = parts(inputs, f"cached_tokens_details.{each}_tokens")
        paths[f"output_{each}_tokens"] = parts(outputs, f"{each}_tokens")
    return {unit: tuple(tuple(path.split(".")) for path in each) for unit, each in paths.items()}


CHAT = _openai_paths(
    ("prompt_tokens", "completion_tokens"), ("prompt_tokens_details",), ("completion_tokens_details",)
)  # fmt: skip
RESPONSES = _openai_paths(
    ("input_tokens", "output_tokens"), OPENAI_DETAILS, ("output_tokens_details", "output_token_details")
)


def _openai_units(usage: Mapping[str, Any], paths: Paths) -> Units:
    units = {unit: _largest_at(usage, places) for unit, places in paths.items()}
    for kind in ("input_{}_tokens", "cache_{}_read_tokens", "output_{}_tokens"):
        # Text is the rest where there is nothing else, and then no unit of its own.
        if not any(units[kind.format(each)] for each in MODALITIES if each != "text"):
            units[kind.format("text")] = None
    return units


def _chat(response: Mapping[str, Any], seller: str) -> Units:
    """Chat completions and embeddings of OpenAI, and of everybody who speaks like it."""
    usage = response["usage"]
    units = _openai_units(usage, CHAT)
    citations, reasoning = _largest(usage, "citation_tokens"), _largest(usage, "reasoning_tokens")
    if seller == "perplexity" and (citations or reasoning):
        # Its page "Pricing": those of deep research are billed beside the completion, and are not in its total.
        output = sum(count or 0 for count in (units["output_tokens"], citations, reasoning))
        return units | {"output_tokens": output, "output_citation_tokens": citations}
    return _with_reasoning_inside(units, usage, is_beside=seller == "x-ai")


def _openai(response: Mapping[str, Any], seller: str) -> Units:
    """Responses, Realtime, images and transcriptions of OpenAI: input tokens with what is cached in them."""
    usage = response["usage"]
    units = _openai_units(usage, RESPONSES)
    searches = _count(web_searches(response))
    units |= {
        "web_searches": units["web_searches"] if searches is None else searches,
        # xAI sells its voice by the second and the message.
        "audio_seconds": _largest(usage, "billable_audio_seconds"),
        "input_text_messages": _largest(usage, "input_text_messages"),
    }
    return _with_reasoning_inside(units, usage, is_beside=False)


def _with_reasoning_inside(units: Units, usage: Mapping[str, Any], is_beside: bool) -> Units:
    """xAI has changed whether reasoning is part of the output; the total decides. Without one it is as `is_beside` says
    (the catalogue's rule for a seller), and beside where it is more than the output."""
    reasoning, output = units["output_reasoning_tokens"] or 0, units["output_tokens"] or 0
    total, counted = _largest(usage, "total_tokens"), (units["input_tokens"] or 0) + output
    if not reasoning or total == counted:
        return units
    if total == counted + reasoning or is_beside or (total is None and reasoning > output):
        return units | {"output_tokens": output + reasoning}
    return units


def _duration(response: Mapping[str, Any], seller: str) -> Units:
    """Transcriptions that OpenAI sells by the second (page "Create transcription")."""
    seconds = _largest(response["usage"], "seconds")
    return {"audio_seconds": seconds, "input_audio_seconds": seconds}


def _catalogued(provider: str, response: Mapping[str, Any]) -> Units:
    """What the catalogue's own extractor for a provider's native API finds."""
    origin = find_provider_by_id(providers, provider)
    if origin is None:
        raise ExtractionError("unknown_shape")
    try:
        _, usage = origin.extract_usage(response)
    except (ValueError, ArithmeticError) as error:
        raise ExtractionError("unreadable") from error
    return dict(vars(usage))


def _gemini(response: Mapping[str, Any], seller: str) -> Units:
    return _catalogued("google", response)


def _bedrock(response: Mapping[str, Any], seller: str) -> Units:
    """Converse, and the models of Amazon under InvokeModel, which call the counts of the cache otherwise."""
    usage = dict(response["usage"])
    for name in ("cacheReadInputTokens", "cacheWriteInputTokens"):
        usage.setdefault(name, usage.get(name.replace("Tokens", "TokenCount")))
    return _catalogued("aws", {**response, "usage": usage})


def _anthropic(response: Mapping[str, Any], seller: str) -> Units:
    """Messages of Anthropic, on every cloud: what is cached is counted beside the input."""
    whole = _catalogued("anthropic", response)
    found = billed_iterations(response["usage"])
    if not found:
        return whole
    counts = [_catalogued("anthropic", {"usage": each}) for each in found]
    names = set().union(*counts)
    sums = {name: sum(each.get(name) or 0 for each in counts) for name in names}
    return whole | sums | iteration_units(counts)


def _billed(response: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _at(response, "usage.billed_units") or _at(response, "meta.billed_units")
    return found if isinstance(found, Mapping) else {}


def _cohere(response: Mapping[str, Any], seller: str) -> Units:
    units = {"input_tokens": "input_tokens", "output_tokens": "output_tokens", "rerank_searches": "search_units"}
    return {unit: _largest(_billed(response), name) for unit, name in units.items()}


def _mistral_ocr(response: Mapping[str, Any], seller: str) -> Units:
    pages = _largest(response, "usage_info.pages_processed")
    is_annotated = response.get("document_annotation") is not None
    return {"input_document_pages": pages, "input_annotated_document_pages": pages if is_annotated else None}
