"""`insights audit`, and the audit log for the commands that change what others see."""

import getpass
import socket
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.tables.audit_log import Action, newest, record
from cli.adapters.clickhouse import admin_warehouse

app = typer.Typer(add_completion=False)


def actor() -> str:
    """`user@host` of whoever runs this command."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a container's user may have no name
    return f"{user}@{socket.gethostname()}"


def record_here(
    warehouse: Warehouse, action: Action, target: str = "", details: Mapping[str, Any] | None = None
) -> None:
    """Write an entry of whoever runs this command."""
    record(warehouse, actor(), action, target, details)


@app.command()
def audit(limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many, the newest.")] = 50) -> None:
    run_audit(admin_warehouse(), limit)


def run_audit(warehouse: Warehouse, limit: int) -> None:
    """Print the newest entries, newest first."""
    table = Table("at (UTC)", "who", "what", "on", "details", box=box.SIMPLE_HEAD)
    for entry in newest(warehouse, limit):
        texts = (entry.actor, entry.action, entry.target, "" if entry.details == "{}" else entry.details)
        table.add_row(f"{entry.at:%F %T}", *map(Text, texts))
    Console().print(table if table.row_count else "nothing yet")
