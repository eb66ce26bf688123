"""`insights rollups`: are they equal to the raw rows, and make them so."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups.rebuild import Drift, rebuild, verify
from aggregator.times import Span
from cli.commands.retention import tell_what_has_gone


def _differences(drift: Drift) -> str:
    parts = (f"{name} {amount}" for name, amount in drift.differences.items() if amount)
    return ", ".join(parts)


def drift_table(drifts: Sequence[Drift]) -> Table:
    """A line for each rollup: groups compared, groups that differ from the raw rows, and by how much in all."""
    table = Table("rollup", box=box.SIMPLE_HEAD)
    for heading in ("groups", "drifted"):
        table.add_column(heading, justify="right")
    table.add_column("sum of differences")
    for drift in drifts:
        style = "green" if drift.is_zero else "bold red"
        told = _differences(drift) or "none"
        table.add_row(drift.rollup, f"{drift.groups:,}", Text(f"{drift.drifted_groups:,}", style), Text(told, style))
    return table


def run_verify(warehouse: Warehouse, span: Span) -> bool:
    """Print the drift of every rollup over the span, widened to whole hours; whether there is none."""
    drifts, console = verify(warehouse, span), Console()
    console.print(drift_table(drifts))
    tell_what_has_gone(console, warehouse, span)
    return all(drift.is_zero for drift in drifts)


def run_rebuild(warehouse: Warehouse, span: Span) -> bool:
    """Compute the rollups of the span anew, then as `run_verify`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("rebuilding partitions", total=None)
        drifts = rebuild(
            warehouse, span, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    console = Console()
    console.print(drift_table(drifts))
    tell_what_has_gone(console, warehouse, span)
    return all(drift.is_zero for drift in drifts)
