"""Results as tables in docs/performance/results.md, between its markers, and as plots."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console

from tests.benchmarks.ingest import APART

mpl.use("svg")

from matplotlib import pyplot as plt

# Ids of what is drawn follow from it, so a plot of the same figures is the same file.
mpl.rcParams["svg.hashsalt"] = "router-insights"

BEGIN, END = "<!-- results of make bench: begin -->", "<!-- results of make bench: end -->"
NAMES = {
    "ours": "router-insights worker",
    "passthrough": "pass-through, `JSONEachRow`",
    f"ours{APART}": f"worker{APART}",
    f"passthrough{APART}": f"pass-through{APART}",
    "pydantic": "pydantic for each event",
    "faust": "Faust agent, `take(5000)`",
}


def render(folder: Path, console: Console) -> None:
    """Write the tables and plots of the results in `folder`."""
    page = folder.parent / "performance/results.md"
    text = page.read_text()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    lines = [line for part, make in PARTS.items() if part in found for line in _section(part, found[part], make)]
    head, rest = text.split(BEGIN)
    page.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])
    if "ingest" in found:
        _plot_ingest(found["ingest"]["results"], folder.parent / "images" / "bench-ingest.svg")
    if "sustained" in found:
        _plot_sustained(found["sustained"]["results"], folder.parent / "images" / "bench-sustained.svg")
    console.print(f"wrote {page.name}")


def _section(part: str, found: dict[str, Any], make: Any) -> Iterator[str]:
    facts = found["machine"]
    yield f"### {TITLES[part]}"
    yield ""
    # Figures of before 27 November do not say.
    file_system = f" {facts['file_system']}," if "file_system" in facts else ""
    yardstick = f" {facts['yardstick_ms']:,.0f} ms for five million additions," if "yardstick_ms" in facts else ""
    yield (
        f"{facts['taken_at']}, {facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB,"
        f"{file_system}{yardstick} load {facts['load_at_start']} at the start, Python {facts['python']},"
        f" seed {facts['seed']}; " + ", ".join(f"{name} {number}" for name, number in facts["libraries"].items()) + "."
    )
    yield ""
    yield from make(found["results"])
    yield ""


def _by_contender(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [run for run in runs if run["contender"] == name] for name in NAMES}


def _rate(run: dict[str, Any]) -> float:
    return float(run["records"] / run["seconds"])


def _cpu_us(run: dict[str, Any]) -> float:
    return float(run["cpu_seconds"] / run["records"] * 1e6)


def _ingest(results: dict[str, Any]) -> Iterator[str]:
    yield (
        "| size | way | events/s (median; least – most) | of the worker's | CPU s per million | of ClickHouse apart"
        " | events per CPU s | peak MiB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for size, runs in results.items():
        named = _by_contender(runs)
        for name, each in named.items():
            ours = statistics.median(map(_rate, named[f"ours{APART}" if name.endswith(APART) else "ours"]))
            engine = statistics.median(run["engine_cpu_seconds"] / run["records"] * 1e6 for run in each)
            rates, cpu = sorted(map(_rate, each)), statistics.median(map(_cpu_us, each))
            peak = max(run["peak_bytes"] or 0 for run in each) / 2**20
            middle = statistics.median(rates)
            yield (
                f"| {size} | {NAMES[name]} | {middle:,.0f} ({rates[0]:,.0f} – {rates[-1]:,.0f}) | {middle / ours:.2f}"
                f" | {cpu:.1f} | {f'{engine:.1f}' if engine else ''} | {1e6 / cpu:,.0f}"
                f" | {f'{peak:,.0f}' if peak else ''} |"
            )
    yield ""
    yield "CPU seconds per million events of the worker, by stage (medians):"
    yield ""
    stages = list(next(iter(results.values()))[0]["stages"])
    yield "| size | " + " | ".join(stages) + " |"
    yield "|---|" + "---|" * len(stages)
    for size, runs in results.items():
        ours_runs = _by_contender(runs)["ours"]
        found = [
            statistics.median(run["stages"][stage] / run["records"] * 1e6 for run in ours_runs) for stage in stages
        ]
        yield f"| {size} | " + " | ".join(f"{each:.1f}" for each in found) + " |"
    yield ""
    yield "![Events per second](../images/bench-ingest.svg)"


def _sustained(run: dict[str, Any]) -> Iterator[str]:
    half = len(run["samples"]) // 2
    peaks = [
        max((sample[2] for sample in part), default=0) / 2**20
        for part in (run["samples"][:half], run["samples"][half:])
    ]
    workers = run.get("workers", 1)
    both = (run["cpu_seconds"] + run["engine_cpu_seconds"]) / run["seconds"]
    yield (
        f"{run['records']:,} events in {run['seconds']:,.0f} s, {workers} worker{'s' * (workers > 1)}:"
        f" **{_rate(run):,.0f} events/s**, {_cpu_us(run):.1f} µs of the workers' CPU an event and"
        f" {run['engine_cpu_seconds'] / run['records'] * 1e6:.1f} of ClickHouse's, {both:.2f} processors together;"
        " resident memory of all workers at most"
        f" {peaks[0]:,.0f} MiB in the first half and {peaks[1]:,.0f} MiB in the second."
    )
    yield ""
    yield "![Events stored and memory over time](../images/bench-sustained.svg)"


def _delay(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"At {found['events_per_second']:,.0f} events/s, workers: {found['workers']}; p50 {found['p50_s']:.2f} s,"
        f" p95 {found['p95_s']:.2f} s,"
        f" p99 {found['p99_s']:.2f} s over {found['probes']:,} probes; {found['unseen']} never seen."
    )


def _reads(results: dict[str, Any]) -> Iterator[str]:
    for rows, found in sorted(results.items(), key=lambda each: int(each[0])):
        facts, requests = found["machine"], found["requests"]
        goals = {name: _is_met(each) for name, each in requests.items() if each.get("goal_ms")}
        yield (
            f"**{int(rows):,} rows**, last part taken {facts['taken_at']} at load {facts['load_at_start']}; one request"
            f" in {found['rows_a_body']} has texts. {sum(goals.values())} of {len(goals)} goals are met. Times in ms:"
            " p50 / p95 / p99 so many at a time; what ClickHouse read for one request, all its statements together;"
            " memory of the statement that took most."
        )
        yield ""
        yield (
            "| request | goal p95 | met | cold | 1 at a time | 8 | 32 | without rollups | rows read | MB read"
            " | memory, MiB |"
        )
        yield "|---|---|---|---|---|---|---|---|---|---|---|"
        for name, each in requests.items():
            goal = f"{each['goal_ms']:.0f} | {'yes' if goals[name] else '**no**'}" if name in goals else " | "
            levels = " | ".join(_times(each.get(f"at {level}")) for level in (1, 8, 32))
            cold, raw = (f"{each[key]:,.0f}" if key in each else "" for key in ("cold_ms", "raw_ms"))
            yield f"| {name} | {goal} | {cold} | {levels} | {raw} | {_read(each)} |"
        yield ""


def _is_met(each: dict[str, Any]) -> bool:
    return bool(each["at 1"]["p95_ms"] <= each["goal_ms"])


def _times(found: dict[str, float] | None) -> str:
    return " / ".join(f"{found[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")) if found else ""


def _read(each: dict[str, Any]) -> str:
    if "rows_read" not in each:
        return " |  | "
    return f"{each['rows_read']:,} | {each['bytes_read'] / 1e6:,.1f} | {each['memory_bytes'] / 2**20:,.1f}"


def _growth(results: dict[str, Any]) -> Iterator[str]:
    yield "| what | µs CPU a row | request_logs, bytes a request | rollup_user | rollup_model |"
    yield "|---|---|---|---|---|"
    for kind in ("users", "models"):
        for count, each in results[kind].items():
            tables = each["tables"]
            rows = tables["request_logs"]["rows"]
            names = ("request_logs", "rollup_user", "rollup_model")
            cells = " | ".join(f"{tables[name]['bytes'] / rows:.1f}" for name in names)
            yield f"| {int(count):,} {kind} | {each['cpu_us_per_row']:.1f} | {cells} |"
    yield ""
    yield "| rows a batch | µs CPU an event | bytes a row, without bodies |"
    yield "|---|---|---|"
    for count, each in results["batch_rows"].items():
        yield f"| {int(count):,} | {each['cpu_us_per_event']:.1f} | {each['bytes_per_row']:.1f} |"
    yield ""
    yield "| partitions | µs CPU an event, engine included | of that with 6 | events/s | peak MiB |"
    yield "|---|---|---|---|---|"
    six = results["partitions"]["6"]["cpu_us_per_event"]
    for count, each in results["partitions"].items():
        cpu = each["cpu_us_per_event"]
        yield (
            f"| {count} | {cpu:.1f} | {cpu / six:.2f} | {each['events_per_second']:,.0f} | {each['peak_mib']:,.0f} |"
        )
    yield ""
    largest = list(results["batch_rows"].values())[-1]["largest_columns"]
    yield "Bytes a row of the largest columns: " + ", ".join(f"`{name}` {size}" for name, size in largest.items()) + "."


TITLES = {
    "ingest": "Ingest, side by side",
    "sustained": "Ingest for minutes",
    "delay": "From emitting to seeing",
    "reads": "Reads",
    "growth": "Growth",
}
PARTS = {"ingest": _ingest, "sustained": _sustained, "delay": _delay, "reads": _reads, "growth": _growth}


def _plot_ingest(results: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, len(results), figsize=(11, 3.2), layout="constrained")
    for axis, (size, runs) in zip(axes, results.items(), strict=True):
        named = _by_contender(runs)
        rates = [statistics.median(map(_rate, each)) for each in named.values()]
        colors = ["#3367d6", "#888", "#7da0e8", "#aaa", "#bbb", "#ddd"]
        axis.barh([NAMES[name].replace(", `JSONEachRow`", "") for name in named], rates, color=colors)
        axis.invert_yaxis()
        axis.set_title(size)
        axis.set_xlabel("events/s")
        if axis is not axes[0]:
            axis.set_yticklabels([])
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _plot_sustained(run: dict[str, Any], path: Path) -> None:
    seconds, stored, resident = zip(*run["samples"], strict=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    left.plot(seconds, [count / 1e6 for count in stored], color="#3367d6")
    left.set(xlabel="seconds", ylabel="million events stored", ylim=(0, None))
    right.plot(seconds, [size / 2**20 for size in resident], color="#3367d6")
    right.set(xlabel="seconds", ylabel="resident memory, MiB", ylim=(0, None))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
