"""`insights` as an operator runs it: ingest workers in one group, each a process."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support import processes

STOP_SECONDS = 30
# In all, as a single worker has by default: with more batches at once than processors, all of them are done late.
INSERT_THREADS = 2


def start_insights(command: str, log: Path, **settings: str) -> "subprocess.Popen[bytes]":
    """Start a command with settings by their names in lower case; its output is appended to `log`."""
    environment = {**os.environ, **{f"INSIGHTS_{name.upper()}": value for name, value in settings.items()}}
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "cli.main", command], env=environment, stderr=file, stdout=file)


class Workers:
    """Running workers, and the sums of their CPU time and memory."""

    def __init__(self, running: Sequence["subprocess.Popen[bytes]"], log: Path) -> None:
        self._running = running
        self._log = log

    def __len__(self) -> int:
        return len(self._running)

    def check(self) -> None:
        """Raises RuntimeError, with the end of their log, when one has ended."""
        if any(process.poll() is not None for process in self._running):
            raise RuntimeError(f"a worker has ended: {self._log.read_text()[-3000:]}")

    @property
    def cpu_seconds(self) -> float:
        return sum(processes.cpu_seconds(process.pid) for process in self._running)

    @property
    def resident_bytes(self) -> int:
        return sum(processes.resident_bytes(process.pid) for process in self._running)

    @property
    def peak_bytes(self) -> int:
        return sum(processes.peak_bytes(process.pid) for process in self._running)


@contextmanager
def running(bootstrap: str, topic: str, group: str, clickhouse: str, count: int, log: Path) -> Iterator[Workers]:
    """`count` workers until the end of the block; their output goes to `log`."""
    settings = {
        "kafka_bootstrap_servers": bootstrap, "kafka_topic": topic, "kafka_group": group, "clickhouse_url": clickhouse,
        "metrics_port": "0", "insert_threads": str(max(1, INSERT_THREADS // count)),
    }  # fmt: skip
    with ExitStack() as stack:
        yield Workers([stack.enter_context(_worker(log, settings)) for _ in range(count)], log)


@contextmanager
def _worker(log: Path, settings: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = start_insights("ingest", log, **settings)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
