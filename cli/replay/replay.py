"""`insights replay`: sends the requests of files to Kafka, as fast as it takes them or at the pace of the trace."""

import asyncio
import io
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.replay.trace import Malformed, Request, TraceFormat, read_requests
from ingest.producer.connection import connect
from ingest.settings import IngestSettings
from router_insights.emitter.event_emitter import EventEmitter

# Malformed lines that are printed; the rest are only counted.
NAMED_LINES = 20
# Requests between two updates of the progress bar.
PROGRESS_EVERY = 500


class Pace:
    """Delays requests so that they are sent `speed` times as fast as they arrived; infinite: without delay."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first: datetime | None = None
        self._started = time.monotonic()

    def wait_seconds(self, moment: datetime) -> float:
        """Seconds until the request of `moment` is due."""
        if self._first is None:
            self._first, self._started = moment, time.monotonic()
        due = (moment - self._first).total_seconds() / self._speed
        return max(0.0, self._started + due - time.monotonic())


class Replay:
    """Sends files one after the other and counts what was sent and what was malformed."""

    def __init__(self, emitter: EventEmitter, form: TraceFormat, speed: float, progress: Progress) -> None:
        self._emitter = emitter
        self._form = form
        self._speed = speed
        self._progress = progress
        self.sent = 0
        self.malformed = 0

    async def send(self, path: Path) -> None:
        """Raises TraceError for a file of another format, KafkaUnavailableError when Kafka does not answer."""
        pace, before = Pace(self._speed), self.sent
        with path.open("rb") as file:
            file_bytes = max(1, os.fstat(file.fileno()).st_size)
            task = self._progress.add_task(path.name, total=file_bytes, sent=0)
            for request in self._requests(file, path):
                if wait_seconds := pace.wait_seconds(request.moment):
                    await asyncio.sleep(wait_seconds)
                await self._emitter.emit_raw(*request.record)
                self.sent += 1
                if self.sent % PROGRESS_EVERY == 0 or wait_seconds:
                    self._progress.update(task, completed=file.tell(), sent=self.sent - before)
            await self._emitter.flush()
            self._progress.update(task, completed=file_bytes, sent=self.sent - before)

    def _requests(self, file: io.BufferedReader, path: Path) -> Iterator[Request]:
        def on_malformed(line: Malformed) -> None:
            self.malformed += 1
            if self.malformed <= NAMED_LINES:
                text = f"{path.name} line {line.line}: {line.reason}"
                self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

        return read_requests(file, path, self._form, on_malformed)


async def _replay(files: list[Path], form: TraceFormat, speed: float, bootstrap_servers: str) -> Replay:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[sent]:,} sent"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    settings = IngestSettings()
    async with await connect(bootstrap_servers, settings.kafka_topic, **settings.client_options()) as emitter:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            replay = Replay(emitter, form, speed, progress)
            for path in files:
                await replay.send(path)
    return replay


def run_replay(files: list[Path], form: TraceFormat, speed: float, bootstrap_servers: str) -> bool:
    """Send the files, print how many requests were sent, and return whether every line was a request."""
    started = time.monotonic()
    replay = asyncio.run(_replay(files, form, speed, bootstrap_servers))
    seconds = time.monotonic() - started
    print(f"{replay.sent:,} requests sent in {seconds:.1f} s")
    if replay.malformed:
        Console(stderr=True).print(f"{replay.malformed:,} lines were not requests and were left out", style="red")
    return not replay.malformed
