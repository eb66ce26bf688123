"""Extracts token counts and the service tier from the provider's response.

Counts are read for events whose gateway has sent none. They follow the event contract: input includes cache reads and
writes, output includes thinking. A body goes through three stages: its messages become one response
(response_messages.py), the response's shape is recognised and read by unit (usage_shapes.py), the units become columns.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from genai_prices.data import providers
from genai_prices.data_snapshot import find_provider_by_id

from aggregator.cost_explanation import UNITS
from aggregator.iterations import PREFIX
from ingest import metrics
from ingest.pricing import catalogue
from ingest.transform.response_messages import ExtractionError, read_response, served_tier
from ingest.transform.usage_shapes import read_units
from router_insights.emitter.contract import TOKEN_COLUMNS
from router_insights.emitter.event import MAX_QUANTITY, MAX_TOKENS

BODIES = ("response_body", "response_body_raw")
COLUMNS = (*TOKEN_COLUMNS.values(), "usage")
EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS) | {"usage": ""}
# Where a response may name the tier that served it; inside a text the quotes would stand behind backslashes.
TIER = r'"(?:service_tier|serviceTier|speed)"\s*:\s*'
PLAIN_TIER = TIER + '(?:"(?:default|standard|auto)"|null)'
# Processed as a batch is what was asked of another endpoint; OpenAI's answer there still names the tier `default`.
BATCH, DEFAULT = "batch", "default"

__all__ = ["ExtractionError", "extract_usage", "with_usage_source"]

# A response may hold anything under any name: deep nesting, numbers of a thousand digits, an object for a word.
# Whatever reading it raises is about this one event, and must not end the batch.
ODD_RESPONSE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def with_usage_source(events: pa.Table) -> pa.Table:
    """The events (EVENT_SCHEMA) with the counts of their responses, the service tier that served them, and a column
    `usage_source`."""
    is_reported = pc.or_(
        pc.or_(pc.is_valid(events["input_tokens"]), pc.is_valid(events["output_tokens"])),
        pc.not_equal(events["usage"], ""),
    )
    has_body = pc.or_(*(pc.not_equal(events[name], "") for name in BODIES))
    source = pc.if_else(is_reported, "reported", "missing")
    if not pc.any(has_body).as_py():
        return events.append_column("usage_source", source)
    asked = pc.and_not(has_body, is_reported).combine_chunks()
    read = pc.or_(asked, _names_tier(events)).combine_chunks()
    if pc.any(read).as_py():
        columns = ["provider", "model_name", "service_tier", *BODIES]
        rows = events.filter(read).select(columns).append_column("asked", asked.filter(read)).to_pylist()
        found = [_extract(row) for row in rows]
        tiers = pa.array([tier for tier, _ in found], events.schema.field("service_tier").type)
        events = _replaced(events, "service_tier", read, tiers)
        counts = [usage for row, (_, usage) in zip(rows, found, strict=True) if row["asked"]]
        for name in COLUMNS:
            values = pa.array([(each or EMPTY)[name] for each in counts], events.schema.field(name).type)
            events = _replaced(events, name, asked, values)
        words = pa.array(["extracted" if each else "missing" for each in counts], pa.string())
        source = pc.replace_with_mask(source, asked, words)
    return events.append_column("usage_source", source)


def _names_tier(events: pa.Table) -> pa.ChunkedArray:
    """Whether a body may name another tier than the event: those that do not are not worth reading.

    Nearly all name the plain one, of which an event without a tier is already.
    """
    named, plain = (
        pc.add(*(pc.count_substring_regex(events[name], pattern) for name in BODIES)) for pattern in (TIER, PLAIN_TIER)
    )
    has_tier = pc.not_equal(events["service_tier"], "")
    return pc.and_(pc.greater(named, 0), pc.or_(has_tier, pc.greater(named, plain)))


def _replaced(events: pa.Table, name: str, mask: pa.BooleanArray, values: pa.Array) -> pa.Table:
    column = pc.replace_with_mask(events[name], mask, values)
    return events.set_column(events.schema.get_field_index(name), name, column)


def _extract(row: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The service tier of one event, and its columns if they were asked for: None, and counted, if the response has
    none."""
    tier = row["service_tier"]
    try:
        response = read_response(row["response_body"] or row["response_body_raw"])
        served = served_tier(response)
        if served and (tier, served) != (BATCH, DEFAULT):
            tier = served
        return tier, _usage(response, row["provider"], row["model_name"]) if row["asked"] else None
    except ExtractionError as error:
        reason = error.reason
    except ODD_RESPONSE:
        reason = "unreadable"
    if row["asked"]:
        metrics.USAGE_NOT_EXTRACTED.labels(reason).inc()
    return tier, None


def extract_usage(provider: str, model_name: str, body: str) -> dict[str, Any]:
    """The token columns and `usage` of an event whose response is `body`: JSON, or a stream of server-sent events.

    Raises ExtractionError.
    """
    try:
        return _usage(read_response(body), provider, model_name)
    except ODD_RESPONSE as error:
        raise ExtractionError("unreadable") from error


def _usage(response: Mapping[str, Any], provider: str, model_name: str) -> dict[str, Any]:
    return _columns(read_units(response, _seller(provider, model_name)))


def _seller(provider: str, model_name: str) -> str:
    """The catalogue's id of who sells the model, '' if it knows none: some count differently in the same shape."""
    listing = catalogue.find(provider, model_name)
    seller = listing.seller if listing else find_provider_by_id(providers, provider.lower())
    return seller.id if seller else ""


def _columns(quantities: Mapping[str, Any]) -> dict[str, Any]:
    units = {name: value for name, value in quantities.items() if name in UNITS.units or name.startswith(PREFIX)}
    if not all(_is_within(name, value) for name, value in units.items()):
        raise ExtractionError("inconsistent")
    columns = {column: units.pop(unit, None) for unit, column in TOKEN_COLUMNS.items()}
    cached = (columns["cached_input_tokens"] or 0) + (columns["cache_creation_input_tokens"] or 0)
    if cached > (columns["input_tokens"] or 0):
        raise ExtractionError("inconsistent")
    if columns["input_tokens"] is None and columns["output_tokens"] is None and not any(units.values()):
        raise ExtractionError("no_usage")
    return {**columns, "usage": json.dumps(units, separators=(",", ":")) if any(units.values()) else ""}


def _is_within(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name.endswith("_tokens"):
        return isinstance(value, int) and value <= MAX_TOKENS
    return bool(value <= MAX_QUANTITY)
