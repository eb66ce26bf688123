"""`insights dead-letters`: list records that did not become rows, replay them once the cause is fixed, or drop them."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.settings import KafkaSettings
from aggregator.tables.audit_log import Action
from aggregator.tables.dead_letters import DeadLetter, Selection, drop, newest, reasons
from cli.adapters.clickhouse import admin_warehouse
from cli.commands.audit import record_here
from cli.options import From, Servers, To, span_between
from ingest.producer.connection import connect
from router_insights.emitter.event_emitter import EventEmitter

# Dead letters that are acknowledged together; each may have up to a megabyte.
REPLAY_BATCH = 100
SHOWN_BYTES = 20_000

app = typer.Typer(add_completion=False, no_args_is_help=True)

Reason = Annotated[str | None, typer.Option(help="Only of this reason, such as json_invalid.")]
Since = Annotated[datetime | None, From]
Until = Annotated[datetime | None, To]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most this many, the newest.")]
Place = Annotated[str, typer.Argument(metavar="TOPIC/PARTITION/OFFSET", help="As `list` names it.")]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


@app.command("list")
def list_dead_letters(reason: Reason = None, start: Since = None, end: Until = None, limit: Limit = 20) -> None:
    """Count them by reason and show the newest."""
    warehouse, selection = admin_warehouse(), Selection(reason, span_between(start, end))
    console = Console()
    table = Table("reason", "field", "letters", "first", "last", box=box.SIMPLE_HEAD)
    for row in reasons(warehouse, selection):
        letters = f"{row['letters']:,}"
        table.add_row(row["reason"], row["field"], letters, f"{row['first']:%F %T}", f"{row['last']:%F %T}")
    if not table.row_count:
        console.print("no dead letters")
        return
    console.print(table)
    lines = Table("topic/partition/offset", "written", "bytes", "reason", "message", box=box.SIMPLE_HEAD)
    for letter in newest(warehouse, selection, limit):
        reason = f"{letter.reason} {letter.field}".strip()
        # Text, because a record may contain what rich reads as markup.
        message = Text(_short(letter.message, 60))
        lines.add_row(letter.place, f"{letter.created_at:%F %T}", f"{letter.value_bytes:,}", Text(reason), message)
    console.print(lines)


def _at(place: str) -> Selection:
    """The dead letter at TOPIC/PARTITION/OFFSET."""
    topic, _, rest = place.rpartition("/")[0].rpartition("/")
    offset = place.rpartition("/")[2]
    if not (topic and rest.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(f"{place!r} must be TOPIC/PARTITION/OFFSET, as `insights dead-letters list` names it")
    return Selection(topic=topic, partition=int(rest), offset=int(offset))


@app.command("show")
def show_dead_letter(place: Place) -> None:
    """Show one whole: where it came from, why it is here, and its bytes."""
    selection = _at(place)
    console = Console()
    found = newest(admin_warehouse(), selection, 1)
    for letter in found:
        for name, text in (
            ("from", f"{letter.place}, produced {letter.record_timestamp:%F %T} UTC"),
            ("written", f"{letter.created_at:%F %T} UTC"),
            ("reason", f"{letter.reason} {letter.field}".strip()),
            ("message", letter.message),
            ("key", repr(letter.key)),
            ("headers", ", ".join(f"{header['name']}: {header['value']}" for header in letter.headers)),
            ("value", f"{letter.value_bytes:,} bytes{', cut at 1 MB' if letter.is_truncated else ''}"),
        ):
            console.print(Text(f"{name:8} {text}"))
        console.print(Text(letter.value[:SHOWN_BYTES].decode(errors="backslashreplace")))
    if not found:
        console.print("there is no such dead letter")
        raise typer.Exit(1)


async def _send(warehouse: Warehouse, letters: list[DeadLetter], emitter: EventEmitter, progress: Progress) -> None:
    """Send them and drop those that Kafka has. After an interruption between the two, some are sent twice."""
    task = progress.add_task(f"sent again to {emitter.topic}", total=len(letters))
    for start in range(0, len(letters), REPLAY_BATCH):
        batch = letters[start : start + REPLAY_BATCH]
        await emitter.deliver([(letter.key or None, letter.value) for letter in batch])
        for letter in batch:
            place = Selection(topic=letter.topic, partition=letter.partition, offset=letter.offset)
            await asyncio.to_thread(drop, warehouse, place)
        progress.advance(task, len(batch))


async def _replay(warehouse: Warehouse, letters: list[DeadLetter], bootstrap_servers: str) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    options = KafkaSettings().client_options()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for topic in sorted({letter.topic for letter in letters}):
            async with await connect(bootstrap_servers, topic, **options) as emitter:
                await _send(warehouse, [letter for letter in letters if letter.topic == topic], emitter, progress)


@app.command("replay")
def replay_dead_letters(
    bootstrap_servers: Servers,
    reason: Reason = None,
    start: Since = None,
    end: Until = None,
    limit: Limit = 100_000,
) -> None:
    """Send them back to the topic they came from, and drop those that Kafka has. Exit 1 when some had to stay."""
    warehouse, selection = admin_warehouse(), Selection(reason, span_between(start, end))
    record_here(warehouse, Action.REPLAY_DEAD_LETTERS, reason or "", {"from": start, "to": end, "limit": limit})
    letters = newest(warehouse, selection, limit)
    whole = [letter for letter in reversed(letters) if not letter.is_truncated]
    asyncio.run(_replay(warehouse, whole, bootstrap_servers))
    cut = len(letters) - len(whole)
    Console().print(f"sent {len(whole):,} dead letters again" + (f"; {cut:,} were cut at 1 MB and stay" if cut else ""))
    raise typer.Exit(0 if cut == 0 else 1)


@app.command("drop")
def drop_dead_letters(
    reason: Reason = None,
    start: Since = None,
    end: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete them."""
    warehouse, selection = admin_warehouse(), Selection(reason, span_between(start, end))
    if not yes:
        typer.confirm("Delete these dead letters for good?", abort=True)
    record_here(warehouse, Action.DROP_DEAD_LETTERS, reason or "", {"from": start, "to": end})
    Console().print(f"dropped {drop(warehouse, selection):,} dead letters")
