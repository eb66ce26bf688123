"""`insights ingest` as an operator runs it: some processes in one group."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.bench_motion import start
from tests.faults.backlog import peak_bytes

STOP_SECONDS = 30
# In all, as a single worker has by default: with more batches at once than processors, all of them are done late.
INSERT_THREADS = 2
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Workers:
    """Those that run, and what they take together."""

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"], log: Path) -> None:
        self._processes = processes
        self._log = log

    def __len__(self) -> int:
        return len(self._processes)

    def check(self) -> None:
        """Raises RuntimeError, with what they said last, when one has ended."""
        if any(process.poll() is not None for process in self._processes):
            raise RuntimeError(f"a worker has ended: {self._log.read_text()[-3000:]}")

    @property
    def cpu_seconds(self) -> float:
        return sum(_cpu_seconds(process.pid) for process in self._processes)

    @property
    def resident_bytes(self) -> int:
        return sum(_resident_bytes(process.pid) for process in self._processes)

    @property
    def peak_bytes(self) -> int:
        return sum(peak_bytes(process.pid) for process in self._processes)


@contextmanager
def running(bootstrap: str, topic: str, group: str, clickhouse: str, count: int, log: Path) -> Iterator[Workers]:
    """`count` workers until the end of the block, and what they say in `log`."""
    settings = {
        "kafka_bootstrap_servers": bootstrap, "kafka_topic": topic, "kafka_group": group, "clickhouse_url": clickhouse,
        "metrics_port": "0", "insert_threads": str(max(1, INSERT_THREADS // count)),
    }  # fmt: skip
    with ExitStack() as stack:
        processes = [stack.enter_context(_worker(log, settings)) for _ in range(count)]
        yield Workers(processes, log)


@contextmanager
def _worker(log: Path, settings: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = start("ingest", log, **settings)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _cpu_seconds(pid: int) -> float:
    """Of all of its threads, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
