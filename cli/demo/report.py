"""Renders the report of the demo from the answers of the API."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from rich import box
from rich.align import Align
from rich.bar import Bar
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.console import Group as Stack
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from router_insights.answers.request_logs import RequestLogStat, RequestLogStats

RISING = " ▁▂▃▄▅▆▇█"
CHART_ROWS = 6
WIDE_COLUMNS = 96
TOP_USERS = 8
LATENCY_MARKS = (("●", "green"), ("◆", "yellow"), ("▲", "red"))
GOOD, BAD = "green", "bold red"


@dataclass(frozen=True)
class Speed:
    """Seconds from the first record sent until the last was sent, and until the API answered for all."""

    emitted_seconds: float
    answered_seconds: float

    def per_second(self, count: int) -> float:
        return count / self.answered_seconds


@dataclass(frozen=True)
class Check:
    """A claim that was checked; it holds when there are no complaints."""

    claim: str
    complaints: Sequence[str]


def _dollars(cost: Decimal | None) -> Text:
    if cost is None:
        return Text("unknown", style="dim italic")
    return Text("<$0.01" if 0 < cost < Decimal("0.01") else f"${cost:,.2f}")


def _short(number: int) -> str:
    """1234567 as `1.2 M`."""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value < 1_000 else f"{value / 1000:,.1f} s"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _bar(part: float, whole: float, color: str) -> RenderableType:
    """A bar that fills its column; anything above zero is visible."""
    if part <= 0 or whole <= 0:
        return ""
    return Bar(whole, 0, max(part, whole / 60), color=color)


def columns_chart(values: Sequence[int], rows: int) -> list[str]:
    """Vertical bars, two cells wide and one apart, as lines from the top."""
    highest = max(values, default=0) or 1
    heights = [math.ceil(8 * rows * value / highest) for value in values]
    return [
        " ".join(RISING[min(max(height - 8 * (rows - 1 - line), 0), 8)] * 2 for height in heights)
        for line in range(rows)
    ]


def _table(*headings: str, title: str) -> Table:
    """A table whose unnamed column takes the remaining width, for bars."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        expand=True,
        title=title,
        title_style="bold",
        title_justify="left",
    )
    for number, heading in enumerate(headings):
        justify: JustifyMethod = "left" if number == 0 or not heading else "right"
        table.add_column(heading, justify=justify, no_wrap=True, ratio=None if heading else 1)
    return table


def headline(totals: RequestLogStats, speed: Speed) -> Panel:
    figures = (
        (f"{totals.total_count:,}", "requests"),
        (_dollars(totals.total_cost).plain, "spent"),
        (_short(totals.total_input_tokens), "tokens in"),
        (_short(totals.total_output_tokens), "tokens out"),
        (_percent(totals.error_count, totals.total_count), "failed"),
        (f"{speed.per_second(totals.total_count):,.0f}", "events/s"),
    )
    grid = Table.grid(expand=True)
    for _ in figures:
        grid.add_column(justify="center", ratio=1)
    grid.add_row(*(Text(value, style="bold cyan") for value, _ in figures))
    grid.add_row(*(Text(label, style="dim") for _, label in figures))
    return Panel(grid, title="[bold]router-insights[/] · the last 24 hours of a gateway", border_style="cyan")


def cost_by_model(models: RequestLogStats) -> Table:
    table = _table("model", "", "cost", "share", "requests", "in", "out", title="Cost by model")
    groups = sorted(models.stats, key=lambda group: group.cost, reverse=True)
    highest = max((group.cost for group in groups), default=Decimal(0))
    total = models.total_cost
    for group in groups:
        without_cost = group.unpriced_count + group.missing_usage_count + group.failed_without_usage_count
        cost = group.cost if without_cost < group.count else None
        share = f"{100 * cost / total:.1f} %" if cost is not None and total else ""
        strip = _bar(float(cost or 0), float(highest), "green")
        counts = (f"{group.count:,}", _short(group.input_tokens), _short(group.output_tokens))
        table.add_row(group.group, strip, _dollars(cost), share, *counts)
    return table


def top_users(users: RequestLogStats) -> Table:
    table = _table("user", "", "requests", "cost", title="Top users by cost")
    groups = sorted(users.stats, key=lambda group: group.cost, reverse=True)[:TOP_USERS]
    for group in groups:
        strip = _bar(float(group.cost), float(groups[0].cost), "green")
        table.add_row(group.group, strip, f"{group.count:,}", _dollars(group.cost))
    return table


def errors_by_model(models: RequestLogStats) -> Table:
    table = _table("model", "", "failed", "rate", title="Failures by model")
    failing = [group for group in models.stats if group.error_count]
    groups = sorted(failing, key=lambda group: group.error_count / group.count, reverse=True)[:TOP_USERS]
    highest = max((group.error_count / group.count for group in groups), default=0)
    for group in groups:
        strip = _bar(group.error_count / group.count, highest, "red")
        table.add_row(group.group, strip, f"{group.error_count:,}", _percent(group.error_count, group.count))
    return table


@dataclass(frozen=True)
class LatencyTrack:
    """Percentiles in ms (p50, p95, p99) as marks on a logarithmic track as wide as its column."""

    points: Sequence[float]
    lowest: float
    highest: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        span = math.log(self.highest / self.lowest) or 1.0
        last = options.max_width - 1
        places = [round(last * math.log(point / self.lowest) / span) for point in self.points]
        marks = {place: Text(mark, style) for place, (mark, style) in zip(places, LATENCY_MARKS, strict=True)}
        line = Text("━", "dim blue")
        yield Text.assemble(*(marks.get(cell, line) if cell >= places[0] else " " for cell in range(places[-1] + 1)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, options.max_width)


def _percentiles(group: RequestLogStat) -> tuple[float, float, float]:
    """p50, p95 and p99, of at least a millisecond so that they have a logarithm."""
    durations = (group.p50_duration_ms, group.p95_duration_ms, group.p99_duration_ms)
    p50, p95, p99 = (max(duration or 1.0, 1.0) for duration in durations)
    return p50, p95, p99


def latency_by_model(models: RequestLogStats) -> Table:
    legend = "Latency by model   [green]●[/] p50  [yellow]◆[/] p95  [red]▲[/] p99   [dim]logarithmic[/]"
    table = _table("model", "", "p50", "p95", "p99", title=legend)
    measured = [(_percentiles(group), group.group) for group in models.stats if group.p50_duration_ms is not None]
    lowest = min((points[0] for points, _ in measured), default=1.0)
    highest = max((points[-1] for points, _ in measured), default=1.0)
    for points, name in sorted(measured):
        table.add_row(name, LatencyTrack(points, lowest, highest), *map(_milliseconds, points))
    return table


def hourly_chart(hours: RequestLogStats) -> RenderableType:
    """Requests per hour, UTC, and the cost of the busiest hour."""
    groups = sorted(hours.stats, key=lambda group: group.group)
    title = Text("Requests per hour, UTC", style="bold")
    if groups:
        busiest = max(groups, key=lambda group: group.count)
        hour, cost = f"{datetime.fromisoformat(busiest.group):%H}:00", _dollars(busiest.cost).plain
        title.append(f"   busiest {hour} with {busiest.count:,} for {cost}", style="not bold dim")
    chart = Text("\n".join(columns_chart([group.count for group in groups], CHART_ROWS)), style="cyan")
    labels = Text(" ".join(f"{datetime.fromisoformat(group.group):%H}" for group in groups), style="dim")
    return Stack(title, Text(), Align.center(chart), Align.center(labels))


def verdict(checks: Sequence[Check], speed: Speed) -> Panel:
    lines = []
    for check in checks:
        good = not check.complaints
        lines.append(Text.assemble(("✓ " if good else "✗ ", GOOD if good else BAD), check.claim))
        lines += [Text(f"    {complaint}", style=BAD) for complaint in check.complaints]
    timing = f"emitted in {speed.emitted_seconds:.1f} s, all answered after {speed.answered_seconds:.1f} s"
    agreed = not any(check.complaints for check in checks)
    title = "everything agrees" if agreed else "something disagrees"
    style = GOOD if agreed else BAD
    return Panel(Stack(*lines), title=f"[bold]{title}[/]", subtitle=timing, border_style=style)


def _side_by_side(left: RenderableType, right: RenderableType) -> Table:
    grid = Table.grid(expand=True, padding=(0, 4, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(left, right)
    return grid


def report(answers: dict[str, RequestLogStats], checks: Sequence[Check], speed: Speed, columns: int) -> RenderableType:
    """The whole report from the API's stats by `model`, `user` and `hour`, for a terminal of `columns`."""
    users, failures = top_users(answers["user"]), errors_by_model(answers["model"])
    sections = (
        headline(answers["model"], speed),
        hourly_chart(answers["hour"]),
        cost_by_model(answers["model"]),
        *([_side_by_side(users, failures)] if columns >= WIDE_COLUMNS else [users, failures]),
        latency_by_model(answers["model"]),
        verdict(checks, speed),
    )
    return Stack(*(Padding(section, (0, 0, 1, 0)) for section in sections))
