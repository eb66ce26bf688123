"""`insights dead-letters`: look at what did not become a row, send it again once the reason is mended, or let it go."""

import asyncio

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from aggregator.clickhouse.client import Warehouse
from aggregator.kafka import KafkaSettings
from aggregator.tables.dead_letters import DeadLetter, Selection, drop, newest, reasons
from cli.adapters.emitter import connect
from ingest.producer.emitter import EventEmitter

# Letters of one acknowledgement; each may have up to a megabyte.
REPLAY_BATCH = 100
SHOWN_BYTES = 20_000


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def run_list(warehouse: Warehouse, selection: Selection, limit: int) -> None:
    """Print how many there are of each reason, then the newest ones, a line each."""
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
        # Text, since a record may hold what rich would take for markup.
        message = Text(_short(letter.message, 60))
        lines.add_row(letter.place, f"{letter.created_at:%F %T}", f"{letter.value_bytes:,}", Text(reason), message)
    console.print(lines)


def run_show(warehouse: Warehouse, selection: Selection) -> bool:
    """Print one whole; whether it is there."""
    console = Console()
    found = newest(warehouse, selection, 1)
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
    return bool(found)


def run_drop(warehouse: Warehouse, selection: Selection) -> None:
    Console().print(f"dropped {drop(warehouse, selection):,} dead letters")


async def _send(warehouse: Warehouse, letters: list[DeadLetter], emitter: EventEmitter, progress: Progress) -> None:
    """Send them and drop those that Kafka has. Interrupted between the two, a part may be sent once more."""
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


def run_replay(warehouse: Warehouse, selection: Selection, limit: int, bootstrap_servers: str) -> bool:
    """Send the selection, oldest first, to the topics it came from; whether all of it could be sent."""
    letters = newest(warehouse, selection, limit)
    whole = [letter for letter in reversed(letters) if not letter.is_truncated]
    asyncio.run(_replay(warehouse, whole, bootstrap_servers))
    cut = len(letters) - len(whole)
    Console().print(f"sent {len(whole):,} dead letters again" + (f"; {cut:,} were cut at 1 MB and stay" if cut else ""))
    return cut == 0
