"""`make bench ARGS="PART ..."`: the benchmarks, a command for each part.

The parts of `all` write their results to docs/benchmarks as JSON; `render` puts these into docs/performance/results.md
and draws the plots, which each of those parts does when it ends. The other parts print their figures.
"""

import asyncio
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console
from rich.progress import Progress

from tests.benchmarks import ingest, reads, report
from tests.benchmarks.delay import measure_delay
from tests.benchmarks.events import EVENTS_PER_SECOND, SEED, SIZES, make
from tests.benchmarks.growth import by_partitions, grow
from tests.benchmarks.rows import Shape, database, fill
from tests.benchmarks.sustained import measure_sustained

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks"
FOLDER = Path("/var/tmp/router-insights-bench")
TEMPORARY = Path(tempfile.gettempdir())
YARDSTICK_ADDITIONS = 5_000_000
LIBRARIES = (
    "aiokafka",
    "chdb-core",
    "clickhouse-connect",
    "faust-streaming",
    "msgspec",
    "pyarrow",
    "pydantic",
)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(width=120)

WorkerCount = Annotated[int, typer.Option(help="Processes, as many as an operator runs for so many processors")]
Rows = Annotated[int, typer.Argument(help="Requests that are made up")]
Folder = Annotated[Path | None, typer.Argument(help="Where the rows are kept; nowhere without")]
Quick = Annotated[bool, typer.Option("--quick", help="A few seconds each; figures are no evidence")]


def _file_system(folder: Path) -> str:
    """On ext4 without a journal the kernel looks through the inodes of all that was deleted lately when it creates a
    file, and merging parts deletes many."""
    number = folder.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    kind, source = next(mount[mount.index("-") + 1 :][:2] for mount in mounts if mount[2] == device)
    if kind != "ext4":
        return kind
    has_journal = any(Path("/proc/fs/jbd2").glob(f"{Path(source).name}-*"))
    return f"ext4 {'with' if has_journal else 'without'} a journal"


def _yardstick_ms() -> float:
    """Of Python adding up a range, the median of three: virtual machines run at half their speed for hours while their
    neighbours are busy, and figures of two days compare by this."""
    times = []
    for _ in range(3):
        started, total = time.perf_counter(), 0
        for number in range(YARDSTICK_ADDITIONS):
            total += number
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 1)


def machine(folder: Path) -> dict[str, Any]:
    """What the figures were taken on; the measured tables lie in the folder."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    load = Path("/proc/loadavg").read_text().split()[0]
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "file_system": _file_system(folder),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "load_at_start": float(load),
        "yardstick_ms": _yardstick_ms(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "seed": SEED,
    }


def save(part: str, results: Any, facts: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{part}.json").write_text(json.dumps({"machine": facts, "results": results}, indent=1) + "\n")
    report.render(RESULTS, console)


@app.command("ingest")
def ingest_part(events: int = 1_000_000, rounds: int = 3, quick: Quick = False) -> None:
    """Our worker, a pass-through, per-event Python and Faust, in turn on the same bytes."""
    facts, results = machine(TEMPORARY), {}
    if quick:
        events, rounds = 120_000, 1
    with ingest.broker() as bootstrap:
        for name, size_bytes in SIZES.items():
            # Fewer of the larger ones: about the same bytes of each size.
            records = make(events * 850 // max(size_bytes, 850), size_bytes)
            console.print(f"[bold]{name}[/]: {len(records):,} records of {EVENTS_PER_SECOND:,} a second")
            whole, part = len(records), max(5_000, len(records) // 10)
            counts = {
                "ours": whole, "passthrough": whole, f"ours{ingest.APART}": whole, f"passthrough{ingest.APART}": whole,
                "pydantic": part, "faust": part,
            }  # fmt: skip
            results[name] = ingest.compare(bootstrap, records, counts, rounds, console)
    save("ingest", results, facts)


@app.command()
def sustained(
    seconds: int = 300,
    rate: int = 45_000,
    workers: WorkerCount = 2,
    quick: Quick = False,
) -> None:
    """Our workers on a backlog that lasts for minutes, ClickHouse in a process of its own: events/s and memory."""
    facts = machine(TEMPORARY)
    seconds = 15 if quick else seconds
    records = make(500_000)
    with ingest.broker() as bootstrap:
        repeat = max(1, seconds * rate // len(records))
        console.print(f"producing {repeat * len(records):,} records")
        topic = asyncio.run(ingest.produce(bootstrap, records, repeat))
        figures = measure_sustained(bootstrap, topic, repeat * len(records), workers)
    console.print(f"{figures['records'] / figures['seconds']:,.0f} events/s for {figures['seconds']:,.0f} s")
    save("sustained", figures, facts)


@app.command()
def delay(rate: int = 20_000, seconds: int = 60, workers: WorkerCount = 2, quick: Quick = False) -> None:
    """From emitting an event to seeing it in the API, at `rate` events a second (half of the most)."""
    facts = machine(TEMPORARY)
    with ingest.broker() as bootstrap:
        found = measure_delay(bootstrap, rate, 10 if quick else seconds, workers)
    console.print(found)
    save("delay", found, facts)


@app.command("reads")
def reads_part(
    rows: Annotated[list[int] | None, typer.Option(help="May be given several times")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Requests whose names start so; may be several")] = None,
    requests: int = 40,
    quick: Quick = False,
) -> None:
    """Every endpoint of the read API over 1, 10 and 50 million rows; figures of other requests and rows are kept."""
    # One line a request would be a part of what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts, levels = machine(FOLDER), (1,) if quick else (1, 8, 32)
    path = RESULTS / "reads.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for count in [200_000] if quick else rows or [1_000_000, 10_000_000, 50_000_000]:
        console.print(f"[bold]{count:,} rows[/]")
        shape = Shape(count)
        # The engine takes one folder and one configuration in a process, and a database for each count in it.
        with Progress(console=console) as progress, database(FOLDER, shape) as warehouse:
            with reads.timed("filling", progress):
                fill(warehouse, shape, progress)
            found = reads.measure(warehouse, shape, progress, 5 if quick else requests, levels, only or [""])
        kept = results.get(str(count), {"requests": {}})["requests"]
        results[str(count)] = {"machine": facts, "rows_a_body": shape.rows_a_body, "requests": kept | found}
    if not quick:
        save("reads", results, facts)


@app.command()
def growth(quick: Quick = False) -> None:
    """How cost grows with users, models, batch size and partitions, and bytes on disk a request."""
    facts, rows = machine(TEMPORARY), 20_000 if quick else 200_000
    found = grow(console, rows)
    with ingest.broker() as bootstrap:
        found["partitions"] = by_partitions(bootstrap, rows, 1 if quick else 3, console)
    save("growth", found, facts)


@contextmanager
def _kept_in(folder: Path | None) -> Iterator[Path]:
    """The folder, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="router-insights-bench-") as temporary:
        yield Path(temporary)


@app.command()
def analytics(rows: Rows = 10_000_000, folder: Folder = None) -> None:
    """Charts over ten million requests: time and memory; exits 1 when a target is missed."""
    from tests.benchmarks.analytics import run

    with _kept_in(folder) as kept:
        is_met = run(rows, kept)
    raise typer.Exit(int(not is_met))


@app.command()
def search(rows: Rows = 10_000_000, folder: Folder = None) -> None:
    """Pages of the search for requests over ten million of them; exits 1 when a search for words misses the goal."""
    from tests.benchmarks.search import run

    with _kept_in(folder) as kept:
        is_met = run(rows, kept)
    raise typer.Exit(int(not is_met))


@app.command()
def budgets(rate: int = 5_000, seconds: float = 60.0, keys: int = 100_000) -> None:
    """From emitting a request to its alert on the topic, and the memory of an aggregator with a budget for each key."""
    from tests.benchmarks.budgets import Load, run

    run(Load(rate, seconds, keys))


@app.command()
def pricing() -> None:
    """Pricing of 50,000 events, beside decoding them."""
    from tests.benchmarks.pricing import run

    run()


@app.command()
def reprice(rows: Rows = 1_000_000) -> None:
    """Repricing a month of rows while ingestion goes on."""
    from tests.benchmarks.reprice import run

    run(rows)


@app.command()
def smoke(events: int = 60_000) -> None:
    """For CI: ratios of steps that are measured in turn in one process; exits 1 when one is twice what it should be."""
    from tests.benchmarks.smoke import ratios

    broken = []
    for name, (found, limit) in ratios(events).items():
        verdict = "ok" if found <= limit else "TOO SLOW"
        console.print(f"  {name:58} {found:6.2f}  at most {limit:5.2f}  {verdict}")
        broken += [name] if found > limit else []
    if broken:
        raise typer.Exit(1)


@app.command("all")
def all_parts(quick: Quick = False) -> None:
    """Every part of docs/performance/results.md, in its order."""
    ingest_part(quick=quick, events=400_000, rounds=3)
    sustained(quick=quick)
    delay(quick=quick)
    reads_part(quick=quick)
    growth(quick=quick)


@app.command()
def render() -> None:
    """Put the results in docs/benchmarks into docs/performance/results.md."""
    report.render(RESULTS, console)


if __name__ == "__main__":
    app()
