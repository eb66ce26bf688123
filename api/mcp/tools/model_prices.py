"""The tool `model_prices`: what a model costs at a moment."""

from datetime import datetime
from typing import Any

from pydantic import Field, StrictStr

from aggregator.budgets.budget import plain
from api.analytics.request import Body
from api.errors import ApiError
from api.mcp.console_links import ConsolePage, page_address
from api.mcp.context import ToolAnswer, ToolContext
from api.mcp.price_list import ModelPrice, PricesUnavailableError
from api.parameters import Instant
from api.wire_types import rfc3339


class PriceArguments(Body):
    model: StrictStr = Field(
        min_length=1, max_length=500, description="As the gateway writes it, or provider/model, e.g. openai/gpt-5-mini."
    )
    at: Instant | None = Field(None, description="RFC 3339 with a zone; now without it.")


def answer_prices(context: ToolContext, asked: PriceArguments) -> ToolAnswer:
    """The prices for everybody, or for the user and the key that the caller is restricted to. Raises ApiError 503."""
    prices = context.price_list
    if prices is None:
        raise ApiError(503, "This service has no list of prices.")
    restriction = context.reader.caller.restriction
    user_id = (restriction.user_id if restriction else None) or ""
    keys = restriction.api_key_ids if restriction else ()
    at: datetime = asked.at or context.now
    try:
        found = prices.prices_of(asked.model, at, user_id, keys[0] if len(keys) == 1 else "")
    except PricesUnavailableError as error:
        raise ApiError(503, f"The prices cannot be read: {error}") from error
    content = {
        "model": asked.model,
        "at": rfc3339(at),
        "for_user_id": user_id or "anybody",
        "unit": "US dollars per million tokens, before the fee; the fee is added to all of it",
        "prices": [_written(price) for price in found],
    }
    notes = [] if found else ["No price per token is known for this model at this time; its requests have no cost."]
    return ToolAnswer(content, page_address(ConsolePage.PRICES, model=asked.model), notes=notes)


def _written(price: ModelPrice) -> dict[str, Any]:
    return {
        "price": price.price,
        "price_version": price.price_version,
        "when_input_tokens_above": max(price.above, 0),
        **{f"{bucket}_usd": plain(rate) for bucket, rate in price.rates.items()},
        "per_request_usd": plain(price.usd_per_request),
        "fee_rate": plain(price.fee_rate),
    }
