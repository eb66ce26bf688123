"""Extracts token counts from the provider's response, for events whose gateway has sent none.

The catalogue's extractors know how each provider counts. The counts follow the event contract: input includes cache
reads and writes, output includes thinking.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from genai_prices.data import providers
from genai_prices.data_snapshot import find_provider_by_id
from genai_prices.types import Provider, Usage

from aggregator.costs import UNITS
from aggregator.token_units import TOKEN_COLUMNS
from ingest import metrics
from ingest.events import MAX_TOKENS
from ingest.pricing import catalogue

BODIES = ("response_body", "response_body_raw")
USAGE_KEYS = ("usage", "usageMetadata")
COLUMNS = (*TOKEN_COLUMNS.values(), "usage")


class ExtractionError(Exception):
    """A response has no usage that can be read; `reason` is the label of the metric."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def with_usage_source(events: pa.Table) -> pa.Table:
    """The events (EVENT_SCHEMA) with the counts of their responses, and a column `usage_source`."""
    is_reported = pc.or_(
        pc.or_(pc.is_valid(events["input_tokens"]), pc.is_valid(events["output_tokens"])),
        pc.not_equal(events["usage"], ""),
    )
    has_body = pc.or_(*(pc.not_equal(events[name], "") for name in BODIES))
    found: list[dict[str, Any] | None] = []
    asked = pc.and_not(has_body, is_reported).combine_chunks()
    if pc.any(asked).as_py():
        found = [_extract(row) for row in events.filter(asked).select(["provider", "model_name", *BODIES]).to_pylist()]
        events = _completed(events, asked, found)
    source = pc.if_else(is_reported, "reported", "missing")
    if found:
        words = pa.array(["extracted" if each else "missing" for each in found])
        source = pc.replace_with_mask(source, asked, words)
    return events.append_column("usage_source", source)


def _completed(events: pa.Table, asked: pa.BooleanArray, found: list[dict[str, Any] | None]) -> pa.Table:
    empty: dict[str, Any] = dict.fromkeys(COLUMNS) | {"usage": ""}
    for name in COLUMNS:
        values = pa.array([(each or empty)[name] for each in found], events.schema.field(name).type)
        column = pc.replace_with_mask(events[name], asked, values)
        events = events.set_column(events.schema.get_field_index(name), name, column)
    return events


def _extract(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The columns of one event, None (and counted) if its response has none."""
    try:
        usage = extract_usage(row["provider"], row["model_name"], row["response_body"] or row["response_body_raw"])
    except ExtractionError as error:
        metrics.USAGE_NOT_EXTRACTED.labels(error.reason).inc()
        return None
    return usage


def extract_usage(provider: str, model_name: str, body: str) -> dict[str, Any]:
    """The token columns and `usage` of an event whose response is `body`: JSON, or a stream of server-sent events.

    Raises ExtractionError.
    """
    response = _fold(_messages(body))
    seller, flavor = _extractor(response, provider, model_name)
    try:
        _, usage = seller.extract_usage(response, api_flavor=flavor)
    except ValueError as error:
        raise ExtractionError("unreadable") from error
    return _columns(usage)


def _messages(body: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a response: itself, the elements of an array, or the events of a stream."""
    if body.lstrip()[:1] in ("{", "["):
        texts = [body]
    else:
        # Deltas of text make up most of a stream and hold no counts.
        lines = (line.removeprefix("data:") for line in body.splitlines() if line.startswith("data:"))
        texts = [line for line in lines if "usage" in line]
    for text in texts:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExtractionError("unreadable") from error
        yield from (each for each in (found if isinstance(found, list) else [found]) if isinstance(each, Mapping))


def _fold(messages: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    """One response out of many: of each count the last one."""
    response: dict[str, Any] = {}
    for message in messages:
        # Anthropic's message_start, OpenAI's response.completed, Bedrock's metadata wrap what others have outside.
        inner = next(
            (message[key] for key in ("message", "response", "metadata") if _has_usage(message.get(key))), None
        )
        part = dict(inner or message)
        for key in USAGE_KEYS:
            if isinstance(part.get(key), Mapping):
                counts = {name: count for name, count in part[key].items() if count is not None}
                part[key] = response.get(key, {}) | counts
        response |= {name: value for name, value in part.items() if value is not None}
    return response


def _has_usage(part: Any) -> bool:
    return isinstance(part, Mapping) and any(isinstance(part.get(key), Mapping) for key in USAGE_KEYS)


def _shape(response: Mapping[str, Any]) -> tuple[str, str, str]:
    """Which API the response is of: the flavor's name, and the provider and flavor that it comes from."""
    if "usageMetadata" in response:
        return "default", "google", "default"
    usage = response.get("usage")
    if not isinstance(usage, Mapping):
        raise ExtractionError("no_usage")
    if "inputTokens" in usage:
        return "default", "aws", "default"
    if "completion_tokens" in usage:
        return "chat", "openai", "chat"
    if "prompt_tokens" in usage:
        return "embeddings", "openai", "embeddings"
    if response.get("object") == "response" or "input_tokens_details" in usage:
        return "responses", "openai", "responses"
    return "anthropic", "anthropic", "default"


def _extractor(response: Mapping[str, Any], provider: str, model_name: str) -> tuple[Provider, str]:
    """The provider's own extractor for the shape, since some count differently in it, else that of its origin."""
    flavor, home, home_flavor = _shape(response)
    listing = catalogue.find(provider, model_name)
    seller = listing.seller if listing else find_provider_by_id(providers, provider.lower())
    named = flavor if flavor != "default" else None
    if seller and any(each.api_flavor == named for each in seller.extractors or []):
        return seller, flavor
    origin = find_provider_by_id(providers, home)
    if origin is None:
        raise ExtractionError("unreadable")
    return origin, home_flavor


def _columns(usage: Usage) -> dict[str, Any]:
    units = {name: value for name, value in vars(usage).items() if name in UNITS.units}
    columns = {column: units.pop(unit, None) for unit, column in TOKEN_COLUMNS.items()}
    counts = {column: count or 0 for column, count in columns.items()}
    cached = counts["cached_input_tokens"] + counts["cache_creation_input_tokens"]
    is_whole = all(isinstance(count, int) and count <= MAX_TOKENS for count in counts.values())
    if not is_whole or cached > counts["input_tokens"]:
        raise ExtractionError("inconsistent")
    if columns["input_tokens"] is None and columns["output_tokens"] is None and not any(units.values()):
        raise ExtractionError("no_usage")
    others = json.dumps(units, separators=(",", ":")) if any(units.values()) else ""
    return {**columns, "usage": others}
