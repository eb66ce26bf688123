"""Charts and found requests for people."""

from rich.console import Console
from rich.text import Text

from cli.output.request_logs import bar
from cli.output.text import printable, shown, table
from router_insights import Chart, FoundRequest, SearchPage

UNITS = {"currency": "$", "duration_seconds": "s", "tokens": "tokens", "number": ""}
FOUND = ("time (UTC)", "model", "user", "status", "in", "out", "cost", "s", "request")


def show_chart(console: Console, chart: Chart) -> None:
    """A row a label, a column a series, and a bar of the first series."""
    console.print(Text(printable(chart.title), style="bold"))
    labels = _label_keys(chart)
    headings = {one.key: f"{printable(one.label)} {UNITS.get(one.unit, one.unit)}".strip() for one in chart.series}
    numbers = tuple(headings.values())
    rows = table(*labels, *numbers, "", numbers=numbers)
    first = chart.series[0].key if chart.series else ""
    largest = max((row.get(first) or 0 for row in chart.data), default=0)
    for row in chart.data:
        cells = [shown(row.get(key)) for key in (*labels, *headings)]
        rows.add_row(*cells, bar(row.get(first) or 0, largest))
    console.print(rows)
    for insight in chart.derived_insights or []:
        value = "unknown" if insight.value is None else f"{insight.value:.6g}"
        console.print(Text(f"{printable(insight.label)}: {value}"))
    if any(one.percentile_method == "sketch" for one in chart.series):
        console.print("Percentiles are within 1 %; everything else is exact.", highlight=False)


def _label_keys(chart: Chart) -> list[str]:
    """What tells the rows apart: a group over time has its label in each bucket, a heatmap has two."""
    if len({row.get("label") for row in chart.data}) == len(chart.data):
        return ["label"]
    return [key for key in ("bucketKey", "label", "secondaryLabel") if any(key in row for row in chart.data)]


def show_found(console: Console, page: SearchPage) -> None:
    rows = table(*FOUND, numbers=("in", "out", "cost", "s"))
    for one in page.items:
        rows.add_row(*_cells(one))
    console.print(rows)
    about = "more than " if page.total_is_approximate else ""
    if not page.total:
        console.print("nothing found")
        return
    console.print(f"page {page.page} of {page.pages}, {about}{page.total:,} found", highlight=False)


def _cells(one: FoundRequest) -> list[Text]:
    status = Text(printable(one.status), style="red" if one.error_type else "")
    values = (one.input_tokens, one.output_tokens, one.price, one.latency, str(one.id))
    return [shown(one.request_start_time), shown(one.engine), shown(one.user_id), status, *map(shown, values)]
