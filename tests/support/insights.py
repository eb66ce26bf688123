"""The `insights` command in processes of its own, as a person runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "cli.main")
TIMEOUT_SECONDS = 120.0
POLL_SECONDS = 0.05
QUERY = """
import json, sys
from aggregator.clickhouse.client import Warehouse
warehouse = Warehouse(sys.argv[1])
print(json.dumps(warehouse.query(sys.argv[2]), default=str))
"""


def environment(**settings: str) -> dict[str, str]:
    """This process's, without its own settings of the product, and with `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INSIGHTS_")}
    return {**kept, "COLUMNS": "200", "INSIGHTS_API_METRICS_PORT": "0", **settings}


def _deliver_interrupts() -> None:
    """A suite that runs in the background ignores SIGINT, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def insights(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def start_insights(*arguments: object, output: Path, **settings: str) -> subprocess.Popen[bytes]:
    """Start a command that runs until a signal ends it; its output goes to the file `output`."""
    with output.open("wb") as file:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=environment(**settings),
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=_deliver_interrupts,
        )


def wait_until(condition: Callable[[], object], timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(POLL_SECONDS)


def processes_naming(text: str) -> dict[int, str]:
    """Command lines of all running processes that hold `text`, by process id."""
    lines = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = (line.split(maxsplit=1) for line in lines if text in line)
    return {int(pid): command for pid, command in found}


def query(data_dir: Path, sql: str, url: str = "") -> list[dict[str, Any]]:
    """Rows of a stack that has stopped, or of the one at `url`; decimals and times as text."""
    url = url or f"chdb://{data_dir}/clickhouse"
    done = subprocess.run([sys.executable, "-c", QUERY, url, sql], capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
