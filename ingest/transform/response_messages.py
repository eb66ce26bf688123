"""Reads a body as one response: JSON, an array of messages, or a stream of server-sent events."""

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ingest.transform.conversation import parse
from ingest.transform.sse import stream_messages

USAGE_KEYS = ("usage", "usageMetadata", "usage_info")
# What others have outside: Anthropic's message_start, OpenAI's response.completed, Bedrock's metadata, Cloudflare's
# result, Cohere's message-end, Groq's last chunk.
WRAPPERS = ("message", "response", "metadata", "result", "delta", "x_groq")
# Deltas of text make up most of a stream and hold neither.
STREAM_WORDS = ("usage", "service_tier", "serviceTier")
# A request may ask for them, none is ever served.
NOT_SERVED = ("", "auto", "unspecified")
MAX_TIER_CHARS = 64
# OpenAI's pricing page: a search is billed, opening a page that was found is not.
UNBILLED_ACTIONS = ("open_page", "find", "find_in_page")


class ExtractionError(Exception):
    """A response has no usage that can be read; `reason` is the label of the metric."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_response(body: str) -> dict[str, Any]:
    """The messages of `body` as one, of each count the largest: counts of a stream are cumulative and never fall.

    The responses of a Realtime session are added up. Raises ExtractionError if no message has usage and one of them
    could not be read.
    """
    response: dict[str, Any] = {}
    usages: dict[tuple[str, str], Any] = {}
    is_cut = False
    for document in _documents(body):
        if document is None:
            is_cut = True
        for message in document if isinstance(document, list) else [document]:
            if isinstance(message, Mapping):
                _add(message, response, usages)
    for (name, _), usage in usages.items():
        response[name] = _merged(response[name], usage, operator.add) if name in response else usage
    if is_cut and not has_usage(response):
        raise ExtractionError("unreadable")
    return response


def has_usage(message: Any) -> bool:
    return isinstance(message, Mapping) and any(isinstance(message.get(key), Mapping) for key in USAGE_KEYS)


def served_tier(response: Mapping[str, Any]) -> str:
    """The service tier that served a response, in lower case; '' if it names none.

    OpenAI and Groq have it beside the usage, Anthropic inside, and its fast mode as a speed; Gemini in the metadata
    of the usage, Bedrock as an object.
    """
    usage, metadata = _mapping(response.get("usage")), _mapping(response.get("usageMetadata"))
    bedrock = response.get("serviceTier")
    speed = usage.get("speed")
    found = (
        speed if speed == "fast" else None,
        usage.get("service_tier"),
        response.get("service_tier"),
        metadata.get("serviceTier"),
        bedrock.get("type") if isinstance(bedrock, Mapping) else bedrock,
    )
    words = (word.lower().removeprefix("service_tier_") for word in found if isinstance(word, str))
    return next((word for word in words if word not in NOT_SERVED and _is_word(word)), "")


def web_searches(response: Mapping[str, Any]) -> Any:
    """How many of OpenAI's built-in searches were billed (pages "Web search" and "Pricing"), None if unknown."""
    reported = _mapping(_mapping(response.get("tool_usage")).get("web_search")).get("num_requests")
    output = response.get("output")
    if reported is not None or not isinstance(output, list):
        return reported
    calls = [item for item in output if isinstance(item, Mapping) and item.get("type") == "web_search_call"]
    return sum(_mapping(call.get("action")).get("type") not in UNBILLED_ACTIONS for call in calls) or None


def _is_word(text: str) -> bool:
    return len(text) <= MAX_TIER_CHARS and text.isascii() and text.isprintable()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _documents(body: str) -> Iterator[Any]:
    """The JSON documents of a body, None for one that cannot be read."""
    if body.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        yield _loaded(body.lstrip("\ufeff \t\r\n"))
        return
    for found in stream_messages(body, STREAM_WORDS):
        if not isinstance(found, str):
            yield found
        elif found.lstrip()[:1] == "{":
            yield _loaded(found)


def _loaded(text: str) -> Any:
    """None for what is no JSON. Python's parser also takes NaN, as clients in Python write a log probability."""
    found = parse(text)
    if not isinstance(found, str):
        return found
    try:
        return json.loads(found)
    except (ValueError, RecursionError):
        return None


def _add(message: Mapping[str, Any], response: dict[str, Any], usages: dict[tuple[str, str], Any]) -> None:
    part = message
    if not has_usage(message):
        part = next((message[key] for key in WRAPPERS if has_usage(message.get(key))), message)
    # Each response of a Realtime session is billed; all other messages belong to the same response.
    owner = str(part.get("id")) if part.get("object") == "realtime.response" else ""
    for name, value in part.items():
        if name not in USAGE_KEYS:
            response |= {name: value} if value is not None else {}
        elif isinstance(value, Mapping):
            usages[name, owner] = _merged(usages.get((name, owner), {}), value, max)


def _merged(earlier: Any, later: Any, number: Callable[[Any, Any], Any]) -> Any:
    """Two reports of one usage as one. `number` combines two counts; of other values the later one is taken."""
    if later is None:
        return earlier
    if _is_number(earlier) and _is_number(later):
        return number(earlier, later)
    if isinstance(earlier, Mapping) and isinstance(later, Mapping):
        names = [*earlier, *(name for name in later if name not in earlier)]
        found = ((name, _merged(earlier.get(name), later.get(name), number)) for name in names)
        return {name: value for name, value in found if value is not None}
    if isinstance(earlier, list) and isinstance(later, list):
        return _merged_lists(earlier, later, number)
    return _merged({}, later, number) if isinstance(later, Mapping) else later


def _merged_lists(earlier: list[Any], later: list[Any], number: Callable[[Any, Any], Any]) -> list[Any]:
    """Items with the same texts (`{"modality": "AUDIO", "tokenCount": 5}`) are merged; if a list has several of them,
    the first with the first, and so on."""
    items: dict[tuple[Any, ...], Any] = {}
    for each in (earlier, later):
        seen: dict[str, int] = {}
        for item in each:
            words = json.dumps(_words(item), sort_keys=True)
            seen[words] = seen.get(words, 0) + 1
            key = words, seen[words]
            items[key] = _merged(items.get(key), item, number)
    return list(items.values())


def _words(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {name: value for name, value in item.items() if isinstance(value, str)}
    return "" if _is_number(item) else item


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
