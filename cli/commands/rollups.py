"""`insights rollups`: compare the rollups with the raw rows, or rebuild them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups.rebuild import Drift, rebuild, verify
from aggregator.tables.audit_log import Action
from aggregator.times import Span
from cli.adapters.clickhouse import admin_warehouse
from cli.commands.audit import record_here
from cli.commands.retention import print_what_expired
from cli.options import From, To, span_between

app = typer.Typer(add_completion=False, no_args_is_help=True)


def _differences(drift: Drift) -> str:
    parts = (f"{name} {amount}" for name, amount in drift.differences.items() if amount)
    return ", ".join(parts)


def drift_table(drifts: Sequence[Drift]) -> Table:
    """A line for each rollup: groups compared, groups that differ from the raw rows, and the sum of the differences."""
    table = Table("rollup", box=box.SIMPLE_HEAD)
    for heading in ("groups", "drifted"):
        table.add_column(heading, justify="right")
    table.add_column("sum of differences")
    for drift in drifts:
        style = "green" if drift.is_zero else "bold red"
        differences = _differences(drift) or "none"
        table.add_row(
            drift.rollup, f"{drift.groups:,}", Text(f"{drift.drifted_groups:,}", style), Text(differences, style)
        )
    return table


def _report(warehouse: Warehouse, span: Span, drifts: Sequence[Drift]) -> bool:
    """Print the drift of every rollup and return whether there is none."""
    console = Console()
    console.print(drift_table(drifts))
    print_what_expired(console, warehouse, span)
    return all(drift.is_zero for drift in drifts)


@app.command("verify")
def verify_rollups(
    start: Annotated[datetime | None, From] = None,
    end: Annotated[datetime | None, To] = None,
) -> None:
    """Compare every rollup with the raw rows. Exit 1 when they differ."""
    warehouse, span = admin_warehouse(), span_between(start, end)
    raise typer.Exit(0 if _report(warehouse, span, verify(warehouse, span)) else 1)


@app.command("rebuild")
def rebuild_rollups(start: Annotated[datetime, From], end: Annotated[datetime, To]) -> None:
    """Compute the rollups of a time range anew while ingestion goes on, then verify them."""
    warehouse, span = admin_warehouse(), span_between(start, end)
    record_here(warehouse, Action.REBUILD_ROLLUPS, "", {"from": start, "to": end})
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("rebuilding partitions", total=None)
        drifts = rebuild(
            warehouse, span, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    raise typer.Exit(0 if _report(warehouse, span, drifts) else 1)
