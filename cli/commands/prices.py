"""`insights prices`: what costs what, why a request cost what it did, and whether the operator's file is right."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from genai_prices.data import providers
from rich import box
from rich.console import Console
from rich.table import Table

from aggregator.clickhouse.client import Warehouse
from aggregator.costs import Explanation, explain, unpriced_reason, with_costs_before_fee
from aggregator.errors import InsightsError
from aggregator.times import EPOCH
from ingest.pricing import PriceBook, PriceKey, load, price_events
from ingest.pricing.price_row import PriceRow
from ingest.pricing.rate_card import BASE, Rates, plain
from ingest.settings import IngestSettings
from ingest.transform.decoder import EVENT_SCHEMA, Rejection, decode_one

REASONS = {"no_usage": "no usage was reported", "no_price": "no price is known for this model, time and usage"}
RATE_HEADINGS = ("input", "cached input", "cache creation", "output")
NEWEST_OF_ID = """
SELECT * EXCEPT metadata FROM request_logs WHERE request_id = {request_id:String} ORDER BY timestamp DESC LIMIT 1
SETTINGS asterisk_include_alias_columns = 1
"""


class PriceQuestionError(InsightsError):
    """There is no answer; the message says why."""


def prices_in_force() -> PriceBook:
    """The catalogue's, and before them those of INSIGHTS_PRICES_FILE. Raises PriceFileError."""
    path = IngestSettings().prices_file
    return load(path) if path else PriceBook()


def _rates(rates: Rates) -> list[str]:
    return [plain(rate) for rate in (rates.input, rates.cached_input, rates.cache_creation_input, rates.output)]


def _percent(rate: Decimal) -> str:
    return f"{plain(rate * 100)}%"


def _holds(row: PriceRow, moment: datetime) -> bool:
    at_us = (moment - EPOCH) // timedelta(microseconds=1)
    time_us = at_us % (86_400 * 10**6)
    return row.since_us <= at_us < row.until_us and row.day_from_us <= time_us < row.day_until_us


def _table(*headings: str) -> Table:
    table = Table(headings[0], box=box.SIMPLE_HEAD)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def run_list(text: str) -> None:
    """The models whose name holds `text`, with what they cost now; dollars per million tokens."""
    book, now = prices_in_force(), datetime.now(UTC)
    table = _table("model", *RATE_HEADINGS)
    names = (f"{provider.id}/{model.id}" for provider in providers for model in provider.models)
    for name in (name for name in names if text.lower() in name.lower()):
        rows = [row for row in book.price_rows(_key(name)) if _holds(row, now) and row.tier.above == BASE]
        table.add_row(name, *(_rates(rows[0].tier.rates) if rows else ["by other units"]))
    Console().print(table if table.row_count else f"no model of the catalogue has {text!r} in its name")


def _key(name: str, **fields: str) -> PriceKey:
    """`name` is provider/model, or a model as gateways write it."""
    provider, slash, model = name.partition("/")
    known = slash and any(provider == each.id for each in providers)
    return PriceKey(provider, model, **fields) if known else PriceKey("", name, **fields)


def run_show(name: str, moment: datetime) -> None:
    """Every tier of a model's price at a moment. Raises PriceQuestionError when no price is known."""
    book = prices_in_force()
    rows = [row for row in book.price_rows(_key(name)) if _holds(row, moment)]
    if not rows:
        raise PriceQuestionError(f"no price per token is known for {name} at {moment.isoformat()}")
    table = _table("more input tokens than", *RATE_HEADINGS, "per request $", "fee")
    for row in rows:
        above, rates = row.tier.above, row.tier.rates
        size = "any" if above == BASE else f"{above:,}"
        table.add_row(size, *_rates(rates), plain(rates.per_request), _percent(row.fee_rate))
    console = Console()
    console.print(f"{rows[0].tier.price_id.split()[0]} at {moment.isoformat()}, dollars per million tokens")
    console.print(table)


def price_one(event: Mapping[str, Any], book: PriceBook) -> dict[str, Any]:
    """A row of EVENT_SCHEMA with what it costs."""
    [priced] = price_events(pa.Table.from_pylist([dict(event)], EVENT_SCHEMA), book).to_pylist()
    return {**event, **with_costs_before_fee(priced)}


def run_explain(event: Mapping[str, Any], at: datetime) -> None:
    """Why such a request would cost what it would: fields of an event but for those that say which one it is.

    Raises PriceQuestionError when it contradicts itself or has no cost.
    """
    key = _key(event["model_name"])
    given = {name: value for name, value in event.items() if value != ""}
    given |= {"model_name": key.model_name, "timestamp": at.isoformat(), "request_id": "-", "status": "-"}
    if key.provider:
        given["provider"] = key.provider
    if "usage" in given:
        given["usage"] = _json(given["usage"])
    decoded = decode_one(0, json.dumps(given).encode())
    if isinstance(decoded, Rejection):
        raise PriceQuestionError(f"{decoded.field}: {decoded.message}".removeprefix(": "))
    _print(price_one(decoded, prices_in_force()))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PriceQuestionError(f"--usage is not JSON: {error}") from error


def run_explain_request(warehouse: Warehouse, request_id: str) -> None:
    """Why a stored request cost what it did. Raises PriceQuestionError when there is none, or it has no cost."""
    rows = warehouse.query(NEWEST_OF_ID, {"request_id": request_id})
    if not rows:
        raise PriceQuestionError(f"there is no request {request_id}")
    _print(rows[0])


def _print(row: Mapping[str, Any]) -> None:
    found = explain(row)
    if found is None:
        reason = unpriced_reason(row)
        raise PriceQuestionError(f"{row['model_name']}: no cost, since {REASONS[reason or 'no_price']}")
    console = Console()
    conditions = "".join(f", {name} {value}" for name, value in found.conditions.items())
    console.print(f"{found.price}{conditions}; {found.price_version}")
    console.print(explanation_table(found))


def explanation_table(found: Explanation) -> Table:
    """quantity x price = amount for each charge, then the fee and the sum; dollars."""
    table = _table("", "quantity", "price $", "per", "amount $")
    for charge in found.charges:
        table.add_row(
            f"{charge.bucket}: {charge.unit}" if charge.unit != f"{charge.bucket}_tokens" else charge.unit,
            f"{charge.quantity:,f}", plain(charge.usd), f"{charge.per:,}", plain(charge.amount_usd),
        )  # fmt: skip
    table.add_section()
    table.add_row("rounding", "", "", "", f"{found.rounding_usd:f}")
    table.add_row("before fee", "", "", "", f"{found.cost_before_fee:f}")
    table.add_row(f"fee {_percent(found.fee_rate)}", "", "", "", f"{found.cost - found.cost_before_fee:f}")
    table.add_row("cost", "", "", "", f"{found.cost:f}")
    return table


def run_check(path: Path) -> None:
    """Say that a file is right. Raises PriceFileError with every mistake and its line."""
    print(f"{path} is right; {load(path).version}")
