"""The ingest worker as a process of the fault suite: the real one, but for a named point where it kills itself.

The suite forks it from a server that has the imports and the prices ready, so that a worker starts in a tenth of
a second and not in several. `insights ingest` itself is what scenarios 8 and 9 run.
"""

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from aggregator.clickhouse.client import Warehouse
from cli.logging_config import configure_logs
from cli.serving import stop_on_signals
from ingest.consumer import worker
from ingest.consumer.batch import Batch
from ingest.consumer.commits import BatchCommits
from ingest.consumer.group_coordinator import GroupCoordinator
from ingest.consumer.partition_buffer import PartitionBuffer
from ingest.consumer.sink import Sink
from ingest.consumer.worker import Worker
from ingest.pricing import PriceBook
from ingest.settings import IngestSettings

Point = Literal[
    "before_intent",
    "after_intent",
    "before_insert",
    "between_tables",
    "after_insert",
    "before_commit",
    "after_commit",
]
POINTS: tuple[Point, ...] = get_args(Point)

PRICES = PriceBook()


class Fuse:
    """Kills this process, as `kill -9` does, when it passes `point` for the `countdown`th time."""

    def __init__(self, point: Point | None, countdown: int) -> None:
        self._point = point
        self._countdown = countdown

    def passes(self, point: Point) -> None:
        if point == self._point:
            self._countdown -= 1
            if self._countdown <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


class FusedSink(Sink):
    def __init__(self, warehouse: Warehouse, fuse: Fuse) -> None:
        super().__init__(warehouse, PRICES)
        self._fuse = fuse

    def write(self, batch: Batch) -> pa.Table:
        self._fuse.passes("before_insert")
        usage = super().write(batch)
        self._fuse.passes("after_insert")
        return usage

    def _insert(self, table: str, rows: pa.Table, batch: Batch) -> None:
        if table == "request_logs":
            self._fuse.passes("between_tables")
        super()._insert(table, rows, batch)


class FusedCommits(BatchCommits):
    def __init__(self, coordinator: GroupCoordinator, fuse: Fuse) -> None:
        super().__init__(coordinator)
        self._fuse = fuse

    async def declare_intent(self, buffer: PartitionBuffer, batch: Batch) -> None:
        self._fuse.passes("before_intent")
        await super().declare_intent(buffer, batch)
        self._fuse.passes("after_intent")

    async def commit_written(self, buffers: Collection[PartitionBuffer]) -> None:
        is_due = any(buffer.uncommitted is not None for buffer in buffers)
        if is_due:
            self._fuse.passes("before_commit")
        await super().commit_written(buffers)
        if is_due:
            self._fuse.passes("after_commit")


class FusedWorker(Worker):
    def __init__(self, settings: IngestSettings, warehouse: Warehouse, fuse: Fuse) -> None:
        super().__init__(settings, warehouse)
        self._sink = FusedSink(warehouse, fuse)
        # The worker makes its commits when it runs, and this process has one worker.
        vars(worker)["BatchCommits"] = partial(FusedCommits, fuse=fuse)


def _show_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


async def _run(settings: IngestSettings, fuse: Fuse) -> None:
    stop = stop_on_signals()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _show_tasks)
    warehouse = Warehouse(settings.clickhouse_url.get_secret_value())
    await FusedWorker(settings, warehouse, fuse).run(stop)
    warehouse.close()


def work(settings: dict[str, Any], log: Path, point: Point | None, countdown: int) -> None:
    """The whole life of a worker process; its log lines are appended to `log` as JSON."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    faulthandler.register(signal.SIGUSR2)
    configure_logs()
    asyncio.run(_run(IngestSettings(**settings), Fuse(point, countdown)))
