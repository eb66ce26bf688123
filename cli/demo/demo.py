"""`insights demo`: sends events through the real stack, checks every sum, and prints a report."""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError
from aggregator.rollups.rebuild import Drift, verify
from cli.demo.api_client import ApiClient
from cli.demo.checks import answer_differences
from cli.demo.generator import Expected, Traffic, draw, expected, records
from cli.demo.report import Check, Speed, report
from cli.local_stack.data_dir import DataDir
from cli.local_stack.process import UpProcess
from router_insights import RequestLogStats
from router_insights.emitter.event_emitter import EventEmitter

WINDOW = timedelta(hours=24)
POLL_SECONDS = 0.2
STALL_SECONDS = 60.0
DELIVERY_TIMEOUT_SECONDS = 10.0
PROGRESS_EVERY = 500
PLAIN_COLUMNS = 100
FOLDER_PREFIX = "router-insights-demo-"
GROUPINGS = ("model", "user", "api_key", "status", "hour")

STORED = """
SELECT count() AS rows, uniqExact(request_id) AS request_ids, (SELECT count() FROM dead_letters) AS dead_letters,
    (SELECT countIf(position(request_headers, 'Bearer ak-') > 0) FROM request_payloads)
    + (SELECT countIf(position(value, 'Bearer ak-') > 0) FROM dead_letters) AS secrets
FROM request_logs
"""


class DemoError(InsightsError):
    """The demo cannot be completed; the message says why."""


@dataclass(frozen=True)
class Stored:
    """What the database holds after the stack has stopped."""

    rows: int
    request_ids: int
    dead_letters: int
    secrets: int
    drifts: list[Drift]


class Run:
    """Emits the traffic and waits until the answers of the API cover it, with a progress bar for each."""

    def __init__(self, stack: UpProcess, client: ApiClient, traffic: Traffic, progress: Progress) -> None:
        self._stack = stack
        self._client = client
        self._traffic = traffic
        self._progress = progress
        self._requests = len(traffic.moments)
        self._records = self._requests + len(traffic.broken_before)
        self._emitted = progress.add_task("emitted", total=self._records)
        self._answered = progress.add_task("answered", total=self._requests)

    async def go(self) -> tuple[Speed, dict[str, RequestLogStats]]:
        """Raises DemoError or UpProcessError when it cannot be completed."""
        started = time.monotonic()
        emitting = asyncio.create_task(self._emit())
        try:
            answers = {kind: await self._wait_for(kind, emitting) for kind in GROUPINGS}
            answered_at = time.monotonic()
            return Speed(await emitting - started, answered_at - started), answers
        finally:
            # After a failure or Ctrl-C the events that are left do not matter.
            emitting.cancel()
            await asyncio.gather(emitting, return_exceptions=True)

    async def _emit(self) -> float:
        """Return the time at which the last event was acknowledged (`time.monotonic()`)."""
        async with EventEmitter(
            self._stack.broker, enable_idempotence=False, delivery_timeout_seconds=DELIVERY_TIMEOUT_SECONDS
        ) as emitter:
            for number, record in enumerate(records(self._traffic)):
                await emitter.emit_raw(*record)
                if number % PROGRESS_EVERY == 0:
                    self._progress.update(self._emitted, completed=number)
            await emitter.flush()
        self._progress.update(self._emitted, completed=self._records)
        return time.monotonic()

    async def _wait_for(self, kind: str, emitting: asyncio.Task[float]) -> RequestLogStats:
        """The answer by `kind` once it covers all requests; the rollups of a batch become visible one after another."""
        changed_at, last = time.monotonic(), -1
        while True:
            stats = await asyncio.to_thread(self._ask, kind)
            self._progress.update(self._answered, completed=stats.total_count)
            if stats.total_count >= self._requests:
                return stats
            if emitting.done():
                emitting.result()
            if stats.total_count != last:
                changed_at, last = time.monotonic(), stats.total_count
            elif time.monotonic() - changed_at > STALL_SECONDS:
                raise DemoError(f"only {last:,} of {self._requests:,} requests are answered and nothing moves any more")
            await asyncio.sleep(POLL_SECONDS)

    def _ask(self, kind: str) -> RequestLogStats:
        self._stack.check()
        try:
            return self._client.stats(kind)
        except httpx2.HTTPError as error:
            self._stack.check()
            raise DemoError(f"the API did not answer: {error}") from error


def _read_stored(data_dir: Path) -> Stored:
    """Read the database of the stopped stack directly."""
    with DataDir(data_dir) as data:
        warehouse = Warehouse(data.clickhouse_url)
        try:
            return Stored(**warehouse.query(STORED)[0], drifts=verify(warehouse))
        finally:
            warehouse.close()


def _difference(got: int, wanted: int, what: str) -> list[str]:
    return [] if got == wanted else [f"{got:,} {what} instead of {wanted:,}"]


def checks_of(wanted: Expected, answers: dict[str, RequestLogStats], stored: Stored) -> list[Check]:
    """Everything that must hold, each with the differences that were found."""
    drifting = [drift for drift in stored.drifts if not drift.is_zero]
    drifted = [f"{drift.rollup}: {drift.drifted_groups:,} groups differ" for drift in drifting]
    groups = sum(drift.groups for drift in stored.drifts)
    requests = wanted.total.requests
    return [
        Check(
            f"{stored.rows:,} rows, each request exactly once",
            _difference(stored.rows, requests, "rows") + _difference(stored.request_ids, requests, "request ids"),
        ),
        Check(f"{len(stored.drifts)} rollups equal the raw rows in all {groups:,} groups", drifted),
        Check(
            f"the API's answers by {', '.join(GROUPINGS)} equal what was emitted", answer_differences(wanted, answers)
        ),
        Check(
            f"{stored.dead_letters:,} broken records are kept as dead letters, with the reason",
            _difference(stored.dead_letters, wanted.dead_letters, "dead letters"),
        ),
        Check("no API key reached the database", _difference(stored.secrets, 0, "records with a key in them")),
    ]


def summary(answers: dict[str, RequestLogStats], stored: Stored, wanted: Expected, speed: Speed) -> dict[str, Any]:
    """The one JSON object at the end."""
    models = answers["model"]
    return {
        "events": wanted.total.requests,
        "rows": stored.rows,
        "rollup_requests": models.total_count,
        "cost": str(models.total_cost or Decimal(0)),
        "unpriced": models.unpriced_count,
        "dead_lettered": stored.dead_letters,
        "seconds": round(speed.answered_seconds, 3),
        "events_per_second": round(speed.per_second(wanted.total.requests)),
    }


def _next_steps(stack: UpProcess) -> str:
    """Commands to paste, against the running stack."""
    key = f"-H 'Authorization: Bearer {stack.api_key}'"
    base = f"{stack.url}/v1/request-logs"
    return f"""\
Look further while it runs (Ctrl-C stops it and removes its data):
  open {stack.url}/docs
  curl {key} '{base}/stats?group_by=user&metric=cost'
  curl {key} '{base}?status=timeout&page_size=5'
  curl {key} '{base}?order_by=duration_ms&page_size=1'
"""


def _progress(status: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=status)


@contextmanager
def _exiting_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: through every `with` block."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(data_dir: Path, traffic: Traffic, status: Console) -> tuple[Speed, dict[str, RequestLogStats]]:
    """Run the traffic through a stack over `data_dir`, which has stopped when this returns."""
    with ExitStack() as running:
        with status.status("starting the broker, ClickHouse's engine, the ingest worker and the API"):
            stack = running.enter_context(UpProcess(data_dir))
        client = running.enter_context(stack.client())
        with _progress(status) as progress:
            measured = asyncio.run(Run(stack, client, traffic, progress).go())
        running.enter_context(status.status("stopping the stack, to look into its database"))
        return measured


def _keep_running(data_dir: Path, last_line: str, status: Console) -> None:
    """Run the stack again, over the rows that it has stored, until Ctrl-C."""
    with ExitStack() as running:
        with status.status("starting the stack again"):
            stack = running.enter_context(UpProcess(data_dir))
        print(f"{_next_steps(stack)}\n{last_line}", flush=True)
        with suppress(KeyboardInterrupt):
            stack.wait()
            stack.check()


def _remove_settings() -> None:
    """Remove the settings of another installation from the environment, so that the demo is always the same."""
    for name in [name for name in os.environ if name.startswith("INSIGHTS_")]:
        del os.environ[name]


def run_demo(count: int, seed: int, keep: bool) -> bool:
    """Print the report and, as the last line, one JSON object; return whether everything agreed.

    Raises DemoError and UpProcessError when there is nothing to report.
    """
    _remove_settings()
    status, page = Console(stderr=True), Console()
    if not page.is_terminal:
        page.width = PLAIN_COLUMNS
    with _exiting_on_sigterm(), tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder).resolve() / "data"
        now = datetime.now(UTC)
        traffic = draw(seed, count, now - WINDOW, now)
        wanted = expected(traffic)
        speed, answers = _measure(data_dir, traffic, status)
        with status.status("comparing every rollup with the raw rows"):
            stored = _read_stored(data_dir)
        checks = checks_of(wanted, answers, stored)
        page.print(report(answers, checks, speed, page.width))
        last_line = json.dumps(summary(answers, stored, wanted, speed))
        if keep:
            _keep_running(data_dir, last_line, status)
        else:
            print(last_line, flush=True)
    return not any(check.complaints for check in checks)
