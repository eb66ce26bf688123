"""`insights reprice`: give stored rows the prices in force now, and show what that changes."""

from datetime import datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aggregator.tables.audit_log import Action
from cli.adapters.clickhouse import admin_warehouse
from cli.commands.audit import record_here
from cli.commands.prices import prices_in_force
from cli.commands.retention import print_what_expired
from cli.commands.rollups import drift_table
from cli.options import From, To, span_between
from ingest.pricing.rate_card import plain
from ingest.pricing.reprice import ModelTotals, Repriced, reprice

app = typer.Typer(add_completion=False)


class _Bars:
    """One progress bar for each step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, step: str, done: int, total: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step)
        self._progress.update(self._tasks[step], completed=done, total=total)


def _cells(name: str, each: ModelTotals) -> list[Text]:
    difference = each.new_cost - each.old_cost
    style = "bold" if each.changed_rows else "dim"
    unpriced = f"{each.old_unpriced:,}"
    if each.new_unpriced != each.old_unpriced:
        unpriced += f" → {each.new_unpriced:,}"
    counts = (f"{each.rows:,}", f"{each.changed_rows:,}")
    costs = (plain(each.old_cost), plain(each.new_cost), f"{'+' if difference >= 0 else ''}{plain(difference)}")
    return [Text(text, style) for text in (name, *counts, *costs, unpriced)]


def totals_table(repriced: Repriced) -> Table:
    """A line for each model and one for all: rows, how many change, dollars before and after, unpriced rows."""
    table = Table("model", box=box.SIMPLE_HEAD, show_footer=False)
    for heading in ("rows", "changed", "old $", "new $", "change $", "unpriced"):
        table.add_column(heading, justify="right", overflow="fold")
    total = ModelTotals("")
    for each in repriced.totals:
        table.add_row(*_cells(each.model_name, each))
        total.add(each)
    table.add_section()
    table.add_row(*_cells("all", total))
    return table


@app.command()
def reprice_rows(
    start: Annotated[datetime, From],
    end: Annotated[datetime, To],
    model: Annotated[str, typer.Option(help="Only rows of this model, as the gateway wrote it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
) -> None:
    warehouse, span = admin_warehouse(), span_between(start, end)
    if not dry_run:
        record_here(warehouse, Action.REPRICE, model, {"from": start, "to": end})
    book = prices_in_force()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        repriced = reprice(warehouse, span, book, model, dry_run, _Bars(progress).show)
    console = Console()
    console.print(totals_table(repriced))
    console.print(f"{'would change' if dry_run else 'changed'} {repriced.changed_rows:,} rows; prices: {book.version}")
    if not dry_run:
        console.print(drift_table(repriced.drifts))
    print_what_expired(console, warehouse, span)
    raise typer.Exit(0 if all(drift.is_zero for drift in repriced.drifts) else 1)
