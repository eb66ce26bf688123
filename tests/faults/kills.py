"""Kills `insights up` again and again while clients send events: every 202 must be a row, once, and no row twice.

`python -m tests.faults.kills [--kills N] [--busy] [--seed S]`. A client that gets no 202 sends again under a new id, as
a gateway may. Every `STOP_EVERY`th life ends by Ctrl-C instead, which must be in order; every `EARLY_EVERY`th is killed
before it is ready. With `--busy` every processor has something else to do.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.support.insights import insights, query
from tests.support.local_stack import EVENT, Up

CLIENTS = 16
SIZES = (1, 1, 1, 1, 5, 40)
STOP_EVERY = 7
EARLY_EVERY = 9
LIFE_SECONDS = (0.0, 3.0)
FIRST_ANSWER_SECONDS = 20.0
TIMES = "SELECT request_id, count() AS times FROM request_logs GROUP BY request_id"


@dataclass
class Ledger:
    """What clients were told, and how long an answer took."""

    accepted: set[str] = field(default_factory=set)
    sent: int = 0
    refused: int = 0
    unanswered: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    ledger: Ledger
    kills: int
    stops: int
    rows: int
    lost: int
    doubled: int
    rollups_are_right: bool

    @property
    def is_clean(self) -> bool:
        return not self.lost and not self.doubled and self.rollups_are_right

    def __str__(self) -> str:
        cuts = statistics.quantiles(self.ledger.seconds, n=100)
        return (
            f"{self.kills} kills, {self.stops} stops: {self.ledger.sent:,} events sent, "
            f"{len(self.ledger.accepted):,} answered 202, {self.rows:,} rows, {self.lost} lost, {self.doubled} doubled,"
            f" rollups {'right' if self.rollups_are_right else 'WRONG'};"
            f" requests: {len(self.ledger.seconds):,} answered 202 (p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s),"
            f" {self.ledger.refused} refused, {self.ledger.unanswered} unanswered"
        )


async def _send_for_ever(up: Up, ledger: Ledger, numbers: Iterator[int], chance: random.Random) -> None:
    async with httpx2.AsyncClient(base_url=up.url, trust_env=False, timeout=90) as client:
        while True:
            ids = [f"r-{next(numbers)}" for _ in range(chance.choice(SIZES))]
            ledger.sent += len(ids)
            began = time.perf_counter()
            try:
                body = "\n".join(EVENT % request_id for request_id in ids)
                response = await client.post("/v1/events", content=body, headers=up.headers())
            except (httpx2.HTTPError, OSError):
                ledger.unanswered += 1
                await asyncio.sleep(0.25)
                continue
            if response.status_code == 202:
                ledger.seconds.append(time.perf_counter() - began)
                ledger.accepted |= set(ids)
            else:
                ledger.refused += 1
                await asyncio.sleep(0.25)


async def _live(up: Up, ledger: Ledger, chance: random.Random, is_early: bool, is_stopped: bool) -> None:
    """One life, from its start to its end."""
    if not is_early:
        await asyncio.to_thread(up.wait_until_ready)
        # How soon that is depends on the machine, and a life without answers would show little.
        before, deadline = len(ledger.accepted), time.monotonic() + FIRST_ANSWER_SECONDS
        while len(ledger.accepted) == before and time.monotonic() < deadline:  # noqa: ASYNC110 - a set
            await asyncio.sleep(0.02)
    await asyncio.sleep(chance.uniform(*LIFE_SECONDS))
    up.process.send_signal(signal.SIGINT if is_stopped else signal.SIGKILL)
    status = await asyncio.to_thread(up.process.wait, 120)
    assert status == (0 if is_stopped else -signal.SIGKILL), up.output.read_text()


async def _run(up: Up, kills: int, ledger: Ledger, chance: random.Random) -> int:
    """Ends after `kills` and, in good order, once more. Returns the number of stops."""
    numbers = itertools.count()
    senders = [asyncio.create_task(_send_for_ever(up, ledger, numbers, chance)) for _ in range(CLIENTS)]
    killed = stops = 0
    for life in itertools.count(1):
        is_last = killed == kills
        is_stopped = is_last or life % STOP_EVERY == 0
        await _live(up, ledger, chance, is_early=not is_stopped and life % EARLY_EVERY == 0, is_stopped=is_stopped)
        killed += not is_stopped
        stops += is_stopped
        if is_last:
            break
        if life % 10 == 0:
            print(f"{killed} kills, {len(ledger.accepted):,} events answered 202", flush=True)
        await asyncio.to_thread(up.restart)
    for sender in senders:
        sender.cancel()
    ended = await asyncio.gather(*senders, return_exceptions=True)
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            raise RuntimeError("a client has failed") from error
    return stops


def run(folder: Path, kills: int, seed: int) -> Verdict:
    """Kill `insights up` over `folder`/data so often, and compare its rows with what clients were told."""
    data_dir, ledger = folder / "data", Ledger()
    up = Up(data_dir)
    try:
        stops = asyncio.run(_run(up, kills, ledger, random.Random(seed)))
    finally:
        up.process.kill()
        up.process.wait()
    times = {row["request_id"]: row["times"] for row in query(data_dir, TIMES)}
    verified = insights("rollups", "verify", INSIGHTS_CLICKHOUSE_URL=f"chdb://{data_dir}/clickhouse")
    return Verdict(
        ledger=ledger, kills=kills, stops=stops, rows=sum(times.values()),
        lost=len(ledger.accepted - times.keys()), doubled=sum(count > 1 for count in times.values()),
        rollups_are_right=verified.returncode == 0,
    )  # fmt: skip


def _burn() -> None:
    while True:
        pass


@contextmanager
def busy_processors() -> Iterator[None]:
    """Every processor has something else to do."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="insights-kills-") as folder:
        if given.busy:
            with busy_processors():
                verdict = run(Path(folder), given.kills, given.seed)
        else:
            verdict = run(Path(folder), given.kills, given.seed)
    print(verdict)
    raise SystemExit(0 if verdict.is_clean else 1)


if __name__ == "__main__":
    main()
