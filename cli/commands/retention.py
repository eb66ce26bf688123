"""`insights retention`: show and set how long rows and bodies are kept."""

from collections.abc import Sequence
from typing import Annotated

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
from cli.adapters.clickhouse import admin_warehouse
from cli.commands.audit import record_here
from cli.settings import AdminSettings

app = typer.Typer(add_completion=False, no_args_is_help=True)

WORDS = {REQUEST_LOGS: "rows", REQUEST_PAYLOADS: "bodies"}
# 50 years: ClickHouse's seconds end in 2106.
MOST_DAYS = 18_250


def _days(text: str) -> int:
    """Days as a number; 0 stands for forever."""
    if text == "forever":
        return 0
    if not text.isdecimal() or not 0 < int(text) <= MOST_DAYS:
        raise typer.BadParameter(f"{text!r} must be forever or a number of days from 1 to {MOST_DAYS:,}")
    return int(text)


Days = typer.Option(parser=_days, metavar="DAYS|forever", help="Days of UTC; as it is without.")


@app.command("show")
def show_retention() -> None:
    """How long rows and bodies are kept, and how much there is."""
    run_show(admin_warehouse())


@app.command("set")
def change_retention(
    rows: Annotated[int | None, Days] = None,
    bodies: Annotated[int | None, Days] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Keep rows, or bodies with all else that people wrote, for so many days; what is older goes. Rollups stay."""
    if rows is None and bodies is None:
        raise typer.BadParameter("give --rows, --bodies, or both")
    warehouse = admin_warehouse()
    now = current(warehouse)
    wanted = Retention(
        now.rows_days if rows is None else rows or None, now.bodies_days if bodies is None else bodies or None
    )
    run_set(warehouse, wanted, AdminSettings().clickhouse_cluster, dry_run, yes)


def _kept(days: int | None) -> str:
    return "for ever" if days is None else f"{days:,} days"


def stock_table(before: Retention, found: Sequence[Stock]) -> Table:
    """A line for rows and one for bodies: how long they are and were kept, how many there are, how many expire."""
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
    print_what_expired(console, warehouse, Span())


def run_set(warehouse: Warehouse, wanted: Retention, cluster: str, dry_run: bool, yes: bool) -> None:
    """Show what would expire; unless it is a dry run, confirm, then set it. Raises RetentionError, ClusterError."""
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


def print_what_expired(console: Console, warehouse: Warehouse, span: Span) -> None:
    """Print a line when rows of `span` have expired or are about to."""
    start = kept_from(warehouse)
    if start > (span.start or EPOCH):
        console.print(f"Rows before {start:%F} UTC are past their retention; rollups of that time stay as they are.")
