"""Reads the usage of a response, by the catalogue's units.

A shape is recognised by its own keys, whoever sells the model: gateways pass the counts of Claude on in the shape of
OpenAI, clouds pass those of OpenAI on unchanged. Units follow the event contract: input includes cache reads and
writes, output includes thinking.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from genai_prices.data import providers
from genai_prices.data_snapshot import find_provider_by_id

from ingest.transform.response_messages import ExtractionError, web_searches
from ingest.transform.usage_iterations import billed_iterations, iteration_units

Units = dict[str, Any]

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
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
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
    found = [count for path in paths if (count := _count(_at(usage, path))) is not None]
    return max(found, default=None)


def _openai_units(usage: Mapping[str, Any], whole: tuple[str, str], details: tuple[tuple[str, ...], ...]) -> Units:
    """`whole` names the counts of input and output, `details` the objects that their parts are in.

    Beside OpenAI's own names: what gateways add for Claude (LiteLLM, OpenRouter, Databricks), DeepSeek's (page
    "Context Caching"), and those of Moonshot, xAI and Qwen. OpenAI has all parts inside the whole.
    """

    def parts(side: int, *names: str) -> list[str]:
        return [f"{each}.{name}" for each in details[side] for name in names]

    written = ("cache_creation_token_details", "cache_creation")
    return {
        "input_tokens": _largest(usage, whole[0]),
        "output_tokens": _largest(usage, whole[1]),
        "cache_read_tokens": _largest(
            usage, *parts(0, "cached_tokens", "cache_read_input_tokens"), "cache_read_input_tokens",
            "prompt_cache_hit_tokens", "cached_tokens", "cached_prompt_text_tokens",
        ),
        "cache_write_tokens": _largest(
            usage, *parts(0, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
            "cache_creation_input_tokens",
        ),
        **{
            f"cache_write_{age}_tokens": _largest(
                usage, *(f"{path}.ephemeral_{age}_input_tokens" for path in (*parts(0, *written), "cache_creation"))
            )
            for age in ("5m", "1h")
        },
        "output_reasoning_tokens": _largest(usage, *parts(1, "reasoning_tokens"), "reasoning_tokens"),
        **_modalities(usage, "input_{}_tokens", parts(0, "{}_tokens")),
        **_modalities(usage, "cache_{}_read_tokens", parts(0, "cached_tokens_details.{}_tokens")),
        **_modalities(usage, "output_{}_tokens", parts(1, "{}_tokens")),
        "web_searches": _largest(usage, "server_tool_use.web_search_requests", "num_search_queries"),
    }  # fmt: skip


def _modalities(usage: Mapping[str, Any], unit: str, paths: list[str]) -> Units:
    """Text is the rest where there is nothing else, and then no unit of its own."""
    counts = {each: _largest(usage, *(path.format(each) for path in paths)) for each in MODALITIES}
    is_mixed = any(count for each, count in counts.items() if each != "text")
    return {unit.format(each): count for each, count in counts.items()} if is_mixed else {}


def _chat(response: Mapping[str, Any], seller: str) -> Units:
    """Chat completions and embeddings of OpenAI, and of everybody who speaks like it."""
    usage = response["usage"]
    names = ("prompt_tokens", "completion_tokens")
    units = _openai_units(usage, names, (("prompt_tokens_details",), ("completion_tokens_details",)))
    citations, reasoning = _largest(usage, "citation_tokens"), _largest(usage, "reasoning_tokens")
    if seller == "perplexity" and (citations or reasoning):
        # Its page "Pricing": those of deep research are billed beside the completion, and are not in its total.
        output = sum(count or 0 for count in (units["output_tokens"], citations, reasoning))
        return units | {"output_tokens": output, "output_citation_tokens": citations}
    return _with_reasoning_inside(units, usage, is_beside=seller == "x-ai")


def _openai(response: Mapping[str, Any], seller: str) -> Units:
    """Responses, Realtime, images and transcriptions of OpenAI: input tokens with what is cached in them."""
    usage = response["usage"]
    details = (OPENAI_DETAILS, ("output_tokens_details", "output_token_details"))
    units = _openai_units(usage, ("input_tokens", "output_tokens"), details)
    searches = _count(web_searches(response))
    if searches is None:
        # Perplexity's and Claude's.
        searches = _largest(usage, "tool_calls_details.search_web.invocation", "server_tool_use.web_search_requests")
    units |= {
        "web_searches": searches,
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
