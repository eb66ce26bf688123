"""`insights topics`: compare Kafka with the file of topics, or apply the file."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.text import Text

from aggregator.settings import KafkaSettings
from ingest.topics.admin import admin_of, apply, look
from ingest.topics.spec import Difference, Found, Wanted, differences, read_wanted

SETTLE_SECONDS = 10.0
POLL_SECONDS = 0.2

app = typer.Typer(add_completion=False, no_args_is_help=True)

TopicFile = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)]
Replicas = Annotated[
    int | None, typer.Option("--replication-factor", min=1, help="Instead of the file's, for fewer brokers.")
]


@app.command("check")
def check_topics(file: TopicFile, replication_factor: Replicas = None) -> None:
    """Name everything in which Kafka differs from FILE, and what to do about it. Exit 1 when anything does."""
    raise typer.Exit(0 if asyncio.run(run_topics(file, replication_factor, does_apply=False)) else 1)


@app.command("apply")
def apply_topics(file: TopicFile, replication_factor: Replicas = None) -> None:
    """Create, add and set what is missing; nothing is deleted or shrunk. Exit 1 when something is left to do."""
    raise typer.Exit(0 if asyncio.run(run_topics(file, replication_factor, does_apply=True)) else 1)


def _print(found: list[Difference]) -> None:
    console = Console()
    for each in found:
        line = Text.assemble((each.what, "" if each.is_repairable else "bold red"), f": {each.remedy}")
        console.print(line, soft_wrap=True)


async def _settled(admin: AIOKafkaAdminClient, wanted: Wanted) -> Found:
    """What Kafka has once the changes show, or after SETTLE_SECONDS: brokers see a change a moment after it is made."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = await look(admin, wanted)
        if not any(each.is_repairable for each in differences(wanted, found)) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(POLL_SECONDS)


async def run_topics(file: Path, replication_factor: int | None, does_apply: bool) -> bool:
    """Print what differs, after applying the file if asked to, and return whether nothing does.

    Raises TopicFileError, TopicError, KafkaUnavailableError.
    """
    settings = KafkaSettings()
    wanted = read_wanted(file)
    if replication_factor is not None:
        wanted = wanted.for_replicas(replication_factor)
    async with admin_of(settings.kafka_bootstrap_servers, **settings.client_options()) as admin:
        found = await look(admin, wanted)
        if does_apply:
            for each in differences(wanted, found):
                if each.is_repairable:
                    print(f"{each.what}: {each.remedy.removeprefix('apply ')}")
            await apply(admin, wanted, found)
            found = await _settled(admin, wanted)
    left = differences(wanted, found)
    if left:
        _print(left)
    else:
        print(f"{len(wanted.topics)} topics are as the file says")
    if found.rights is None and wanted.acls:
        print("the brokers have no authorizer: rights are neither checked nor needed")
    return not left
