"""`insights retention`: how long rows and bodies are kept."""

from collections.abc import Sequence

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.retention import Retention, Stock, current, kept_from, set_retention, stocks
from aggregator.clickhouse.tables import REQUEST_LOGS, REQUEST_PAYLOADS
from aggregator.tables.audit_log import Action
from aggregator.times import EPOCH, Span
from cli.commands.audit import record_here

WORDS = {REQUEST_LOGS: "rows", REQUEST_PAYLOADS: "bodies"}


def _kept(days: int | None) -> str:
    return "for ever" if days is None else f"{days:,} days"


def stock_table(before: Retention, found: Sequence[Stock]) -> Table:
    """A line for rows and one for bodies: how long each is and was kept, how many there are, how many go."""
    table = Table("", "kept", box=box.SIMPLE_HEAD)
    for heading in ("stored", "oldest", "past it now"):
        table.add_column(heading, justify="right")
    for stock in found:
        was = before.rows_days if stock.table == REQUEST_LOGS else before.bodies_days
        kept = _kept(stock.days) if was == stock.days else f"{_kept(was)} → {_kept(stock.days)}"
        oldest = f"{stock.oldest:%F}" if stock.oldest else ""
        style = "bold red" if stock.expired else ""
        table.add_row(WORDS[stock.table], kept, f"{stock.stored:,}", oldest, Text(f"{stock.expired:,}", style))
    return table


def run_show(warehouse: Warehouse) -> None:
    console, retention = Console(), current(warehouse)
    console.print(stock_table(retention, stocks(warehouse, retention)))
    tell_what_has_gone(console, warehouse, Span())


def run_set(warehouse: Warehouse, wanted: Retention, cluster: str, dry_run: bool, yes: bool) -> None:
    """Show what would go; unless it is dry, ask, and do it. Raises RetentionError, ClusterError."""
    wanted.check()
    console, before = Console(), current(warehouse)
    console.print(stock_table(before, stocks(warehouse, wanted)))
    console.print("Rollups keep their sums. What goes cannot be brought back.")
    if dry_run:
        return
    if not yes:
        typer.confirm("Keep it so?", abort=True)
    details = {"rows_days": wanted.rows_days, "bodies_days": wanted.bodies_days}
    record_here(warehouse, Action.SET_RETENTION, "", details)
    set_retention(warehouse, wanted, cluster)
    console.print("ClickHouse deletes what is past it in the background (system.mutations), then day by day.")


def tell_what_has_gone(console: Console, warehouse: Warehouse, span: Span) -> None:
    """Say so where rows of `span` have been deleted, or are about to be."""
    start = kept_from(warehouse)
    if start > (span.start or EPOCH):
        console.print(f"Rows before {start:%F} UTC are past their retention; rollups of that time stay as they are.")
