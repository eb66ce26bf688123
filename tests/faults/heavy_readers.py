"""What others notice of a key that asks more than ClickHouse can answer: `python -m tests.faults.heavy_readers`.

`insights up` as a process of its own over many rows. A key that is restricted to one user asks 45 times at once for 25
heatmaps of percentiles under a filter of 20 ORed `metadata key_contains`, again and again; then its clients hang up.
Meanwhile others ask for health, send events and read a first page. Prints what these took and exits 1 when it is more
than docs/operations.md promises.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from rich.progress import Progress

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from aggregator.tables.api_keys import create_key
from cli.local_stack.data_dir import DataDir
from cli.local_stack.process import UpProcess, free_port
from cli.local_stack.supervisor import start_supervised, stop_supervised
from tests.benchmarks.rows import Shape, fill

ROWS, LOAD_SECONDS = 2_000_000, 40.0
CLIENTS, CHARTS, LEAVES, USERS = 45, 25, 20, 3
QUESTION = {
    "customCharts": [
        {
            "id": f"c{number}", "chartType": "heatmap", "metric": "percentile", "percentile": 50 + number,
            "metricField": ("latency_ms", "cost", "output_tokens", "input_tokens")[number % 4],
            "groupByField": ("engine", "status", "provider_type", "session_id", "prompt_id")[number % 5],
            "secondaryGroupByField": ("user_id", "error_type", "api_key_id")[number % 3],
        }
        for number in range(CHARTS)
    ],
    "filter_group": {
        "logic": "OR",
        "filters": [
            {"field": "metadata", "operator": "key_contains", "nested_key": f"team{number or ''}", "value": "earc"}
            for number in range(LEAVES)
        ],
    },
}  # fmt: skip
EVENT = {"model_name": "m", "status": "success"}
BUSY = ("queries_running", "queries_waiting", "requests_under_way")
CHARTS_PATH = "/api/public/v2/requests/analytics/custom-analytics"
# How many queries of one key run at a time in `insights up`, beside which everybody else's do.
AT_A_TIME = 2
NORMAL_AGAIN_SECONDS = 5.0


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def prepare(folder: Path, rows: int) -> None:
    """Fill the data directory of a stack, and make keys. In a process that ends before the stack starts."""
    with DataDir(folder) as data:
        warehouse = Warehouse(data.clickhouse_url)
        migrate(warehouse)
        with Progress(disable=True) as progress:
            fill(warehouse, Shape(rows, users=USERS), progress)
        keys = {
            "heavy": create_key(warehouse, "heavy", ["read"], "test", user_id="user-0"),
            "other": create_key(warehouse, "other", ["read"], "test"),
            "gateway": create_key(warehouse, "gateway", ["ingest"], "test"),
        }
        warehouse.close()
    (folder / "keys.json").write_text(json.dumps(keys))


async def abuse(url: str, key: str) -> None:
    """Ask without end; whoever is refused comes back when told to. Prints a line for each answer."""

    async def client(http: httpx2.AsyncClient) -> None:
        while True:
            answer = await http.post(CHARTS_PATH, json=QUESTION)
            print(answer.status_code, flush=True)
            await asyncio.sleep(float(answer.headers.get("Retry-After", 0)))

    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=url, headers=headers(key), timeout=None, limits=limits, trust_env=False
    ) as h:
        await asyncio.gather(*(client(h) for _ in range(CLIENTS)))


@dataclass
class Times:
    """Seconds of each answer, and the statuses that there were."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    async def take(self, asking: Awaitable[httpx2.Response]) -> None:
        started = time.monotonic()
        status = (await asking).status_code
        self.seconds.append(time.monotonic() - started)
        self.statuses[status] += 1

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(0.99 * len(self.seconds)))]

    def __str__(self) -> str:
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return f"median {self.median:.3f} s, p99 {self.p99:.3f} s, max {max(self.seconds):.3f} s ({answers})"


@dataclass
class Phase:
    """What everybody but the abuser got."""

    health: Times = field(default_factory=Times)
    ready: Times = field(default_factory=Times)
    events: Times = field(default_factory=Times)
    page: Times = field(default_factory=Times)

    def show(self, name: str) -> None:
        for what in ("health", "ready", "events", "page"):
            print(f"{name:>8}  {what:<7} {getattr(self, what)}", flush=True)


@dataclass
class Verdict:
    """`abuser` are the answers that it got; `idle_after_seconds` when none of its queries ran any more."""

    quiet: Phase
    load: Phase
    after: Phase
    abuser: Counter[int]
    idle_after_seconds: float

    @property
    def page_bound_seconds(self) -> float:
        """Twice the quiet time, and as much again for each query of the abuser that runs beside."""
        return (2 + AT_A_TIME) * self.quiet.page.median

    def faults(self) -> list[str]:
        found = {
            "a health check took too long": self.load.health.p99 > 0.1,
            "the other key's page took too long": self.load.page.median > self.page_bound_seconds,
            "somebody else was refused": any(
                set(times.statuses) != {status}
                for times, status in (
                    (self.load.health, 200), (self.load.ready, 200), (self.load.events, 202), (self.load.page, 200),
                )
            ),
            "queries went on when their clients had gone": self.idle_after_seconds > NORMAL_AGAIN_SECONDS,
            "it was not as before after the load": self.after.page.median > 2 * self.quiet.page.median,
        }  # fmt: skip
        return [name for name, is_so in found.items() if is_so]


@dataclass
class Others:
    """The callers who are no abusers."""

    http: httpx2.AsyncClient
    keys: dict[str, str]

    async def ask(self, seconds: float) -> Phase:
        phase, until = Phase(), time.monotonic() + seconds

        async def again(pause_seconds: float, times: Times, ask: Callable[[], Awaitable[httpx2.Response]]) -> None:
            while time.monotonic() < until:
                await times.take(ask())
                await asyncio.sleep(pause_seconds)

        await asyncio.gather(
            again(0.05, phase.health, lambda: self.http.get("/healthz")),
            again(0.5, phase.ready, lambda: self.http.get("/readyz")),
            again(0.5, phase.events, self._send),
            again(0.2, phase.page, self._page),
        )
        return phase

    async def _send(self) -> httpx2.Response:
        event = {
            "request_id": uuid.uuid4().hex,
            "timestamp": "2026-11-20T09:31:00Z",
            "model_name": "m",
            "status": "success",
        }
        return await self.http.post("/v1/events", json=event, headers=headers(self.keys["gateway"]))

    async def _page(self) -> httpx2.Response:
        return await self.http.get("/v1/request-logs", headers=headers(self.keys["other"]))


async def gauges(port: int) -> dict[str, float]:
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(insights_api_\w+) (\S+)$", text, re.MULTILINE)}


async def idle_after(port: int, limit_seconds: float) -> float:
    """How many seconds it takes until nothing waits and nothing runs."""
    started = time.monotonic()
    while time.monotonic() - started < limit_seconds:
        now = await gauges(port)
        if not any(
            now[f"insights_api_{what}"] for what in ("queries_running", "queries_waiting", "requests_under_way")
        ):
            break
        await asyncio.sleep(0.1)
    return time.monotonic() - started


async def observe(up: UpProcess, keys: dict[str, str], metrics_port: int, seconds: float) -> Verdict:
    log = up.data_dir / "abuser.log"
    async with httpx2.AsyncClient(base_url=up.url, trust_env=False, timeout=120) as http:
        others = Others(http, keys)
        await others.ask(2)
        quiet = await others.ask(min(seconds / 3, 8))
        quiet.show("quiet")
        command = [sys.executable, "-m", "tests.faults.heavy_readers", "--abuse", up.url, "--key", keys["heavy"]]
        with log.open("wb") as output:
            abuser = start_supervised(command, grace_seconds=1, output=output)
        try:
            while not (await gauges(metrics_port))["insights_api_queries_running"]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
            load = await others.ask(seconds)
            load.show("load")
        finally:
            await asyncio.to_thread(stop_supervised, abuser)
        idle_seconds = await idle_after(metrics_port, 60)
        await asyncio.sleep(max(0.0, NORMAL_AGAIN_SECONDS - idle_seconds))
        after = await others.ask(min(seconds / 3, 8))
        after.show("after")
    answers = Counter(int(line) for line in log.read_text().split() if line.isdigit())
    return Verdict(quiet, load, after, answers, idle_seconds)


def run(folder: Path, rows: int, seconds: float) -> Verdict:
    """Needs an empty folder."""
    data, metrics_port = folder / "data", free_port()
    me = [sys.executable, "-m", "tests.faults.heavy_readers"]
    subprocess.run([*me, "--prepare", str(data), "--rows", str(rows)], check=True)
    keys = json.loads((data / "keys.json").read_text())
    os.environ["INSIGHTS_METRICS_PORT"] = str(metrics_port)
    try:
        with UpProcess(data) as up:
            return asyncio.run(observe(up, keys, metrics_port, seconds))
    finally:
        del os.environ["INSIGHTS_METRICS_PORT"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seconds", type=float, default=LOAD_SECONDS)
    parser.add_argument("--prepare", type=Path, help="fill this data directory and do no more")
    parser.add_argument("--abuse", help="be the abuser of the API at this address")
    parser.add_argument("--key", help="the abuser's key")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare, arguments.rows)
        return 0
    if arguments.abuse:
        with suppress(KeyboardInterrupt):
            asyncio.run(abuse(arguments.abuse, arguments.key))
        return 0
    with tempfile.TemporaryDirectory(prefix="router-insights-readers-") as folder:
        verdict = run(Path(folder), arguments.rows, arguments.seconds)
    print(
        f"the abuser got {dict(verdict.abuser)}; nothing of it ran {verdict.idle_after_seconds:.1f} s after it left;"
        f" the other key's page may take {verdict.page_bound_seconds:.3f} s"
    )
    for fault in verdict.faults():
        print(f"FAULT: {fault}")
    return 1 if verdict.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
