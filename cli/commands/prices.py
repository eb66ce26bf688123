"""`insights prices`: what models cost, why a request cost what it did, and whether the operator's file is valid."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from genai_prices.data import providers
from rich import box
from rich.console import Console
from rich.table import Table

from aggregator.clickhouse.client import Warehouse
from aggregator.cost_explanation import Explanation, explain, unpriced_reason, with_costs_before_fee
from aggregator.errors import InsightsError
from cli.adapters.clickhouse import admin_warehouse
from cli.adapters.price_list import holds, price_key
from cli.options import moment
from ingest.pricing import PriceBook, load, price_events
from ingest.pricing.rate_card import BASE, Rates, plain
from ingest.settings import IngestSettings
from ingest.transform.decoder import EVENT_SCHEMA, Rejection, decode_one

app = typer.Typer(add_completion=False, no_args_is_help=True)

At = typer.Option("--at", parser=moment, metavar="TIME", help="RFC 3339, or a date (UTC); now without.")
REASONS = {
    "no_price": "no price is known for this model, time and usage",
    "no_usage": "no usage was reported",
    "failed_without_usage": "it failed and reported no usage",
}
RATE_HEADINGS = ("input", "cached input", "cache creation", "output")
NEWEST_OF_ID = """
SELECT * EXCEPT metadata FROM request_logs WHERE request_id = {request_id:String} ORDER BY timestamp DESC LIMIT 1
SETTINGS asterisk_include_alias_columns = 1
"""


class PriceQuestionError(InsightsError):
    """The question about prices has no answer; the message says why."""


def prices_in_force() -> PriceBook:
    """The prices of INSIGHTS_PRICES_FILE, then those of the catalogue. Raises PriceFileError."""
    path = IngestSettings().prices_file
    return load(path) if path else PriceBook()


def _rates(rates: Rates) -> list[str]:
    return [plain(rate) for rate in (rates.input, rates.cached_input, rates.cache_creation_input, rates.output)]


def _percent(rate: Decimal) -> str:
    return f"{plain(rate * 100)}%"


def _table(*headings: str) -> Table:
    table = Table(headings[0], box=box.SIMPLE_HEAD)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", overflow="fold")
    return table


@app.command("list")
def list_prices(text: Annotated[str, typer.Argument(help="A part of the name.")] = "") -> None:
    """The models of the catalogue, dollars per million tokens now."""
    book, now = prices_in_force(), datetime.now(UTC)
    table = _table("model", *RATE_HEADINGS)
    names = (f"{provider.id}/{model.id}" for provider in providers for model in provider.models)
    for name in (name for name in names if text.lower() in name.lower()):
        rows = [row for row in book.price_rows(price_key(name)) if holds(row, now) and row.tier.above == BASE]
        table.add_row(name, *(_rates(rows[0].tier.rates) if rows else ["by other units"]))
    Console().print(table if table.row_count else f"no model of the catalogue has {text!r} in its name")


@app.command("show")
def show_price(
    model: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="Or a model as the gateway writes it.")],
    at: Annotated[datetime | None, At] = None,
) -> None:
    """What a model costs, tier by tier."""
    at = at or datetime.now(UTC)
    book = prices_in_force()
    rows = [row for row in book.price_rows(price_key(model)) if holds(row, at)]
    if not rows:
        raise PriceQuestionError(f"no price per token is known for {model} at {at.isoformat()}")
    table = _table("more input tokens than", *RATE_HEADINGS, "per request $", "fee")
    for row in rows:
        above, rates = row.tier.above, row.tier.rates
        size = "any" if above == BASE else f"{above:,}"
        table.add_row(size, *_rates(rates), plain(rates.per_request), _percent(row.fee_rate))
    console = Console()
    console.print(f"{rows[0].tier.price_id.split()[0]} at {at.isoformat()}, dollars per million tokens")
    console.print(table)


@app.command("explain")
def explain_price(
    model: Annotated[str, typer.Argument(metavar="[PROVIDER/MODEL]")] = "",
    request_id: Annotated[str, typer.Option("--request", metavar="ID", help="A stored request, instead.")] = "",
    input_tokens: Annotated[int, typer.Option("--input", min=0, max=10**9)] = 0,
    output_tokens: Annotated[int, typer.Option("--output", min=0, max=10**9)] = 0,
    cached_input_tokens: Annotated[int, typer.Option("--cached-input", min=0)] = 0,
    cache_creation_input_tokens: Annotated[int, typer.Option("--cache-creation", min=0)] = 0,
    thinking_tokens: Annotated[int, typer.Option("--thinking", min=0)] = 0,
    usage: Annotated[str, typer.Option(help='Further units as JSON: {"web_searches": 2}')] = "",
    service_tier: Annotated[str, typer.Option()] = "",
    provider: Annotated[str, typer.Option()] = "",
    user_id: Annotated[str, typer.Option("--user")] = "",
    api_key_id: Annotated[str, typer.Option("--api-key")] = "",
    at: Annotated[datetime | None, At] = None,
) -> None:
    """Quantity x price for everything that a request is charged."""
    if bool(model) == bool(request_id):
        raise typer.BadParameter("give either a model or --request")
    if request_id:
        _print(_stored(admin_warehouse(), request_id))
        return
    event = {"model_name": model, "provider": provider, "user_id": user_id, "api_key_id": api_key_id,
             "service_tier": service_tier, "input_tokens": input_tokens, "output_tokens": output_tokens,
             "cached_input_tokens": cached_input_tokens, "cache_creation_input_tokens": cache_creation_input_tokens,
             "thinking_tokens": thinking_tokens, "usage": usage}  # fmt: skip
    _print(_priced(event, at or datetime.now(UTC)))


def _priced(event: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """The row of a request that was not made, with what it would cost.

    `event` holds the fields of an event but for those that say which one it is. Raises PriceQuestionError when they
    contradict one another.
    """
    key = price_key(event["model_name"])
    given = {name: value for name, value in event.items() if value != ""}
    given |= {"model_name": key.model_name, "timestamp": at.isoformat(), "request_id": "-", "status": "-"}
    if key.provider:
        given["provider"] = key.provider
    if "usage" in given:
        given["usage"] = _json(given["usage"])
    decoded = decode_one(0, json.dumps(given).encode())
    if isinstance(decoded, Rejection):
        raise PriceQuestionError(f"{decoded.field}: {decoded.message}".removeprefix(": "))
    [priced] = price_events(pa.Table.from_pylist([decoded], EVENT_SCHEMA), prices_in_force()).to_pylist()
    return {**decoded, **with_costs_before_fee(priced)}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PriceQuestionError(f"--usage is not JSON: {error}") from error


def _stored(warehouse: Warehouse, request_id: str) -> dict[str, Any]:
    """The newest row of a request. Raises PriceQuestionError when there is none."""
    rows = warehouse.query(NEWEST_OF_ID, {"request_id": request_id})
    if not rows:
        raise PriceQuestionError(f"there is no request {request_id}")
    return rows[0]


def _print(row: Mapping[str, Any]) -> None:
    """Raises PriceQuestionError when the row has no cost."""
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


@app.command("check")
def check_prices(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]) -> None:
    """Whether a file of the operator's prices is right; every mistake with its line."""
    print(f"{file} is right; {load(file).version}")
