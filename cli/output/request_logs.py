"""Request logs and their statistics for people."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.style import Style
from rich.text import Text

from cli.output.text import dollars, moment, printable, shown, table
from router_insights import ExplainedLog, RequestLog, RequestLogPage, RequestLogStats

COLUMNS = ("time (UTC)", "model", "user", "status", "in", "out", "cost", "ms", "request")
NUMBERS = ("in", "out", "cost", "ms")
# Wide enough for most; a line of a stream cannot know what comes.
WIDTHS = (19, 24, 16, 12, 8, 8, 14, 7, 0)
BAR_WIDTH = 24
BODIES = ("request_body", "response_body", "request_headers", "response_headers")
CHARGES = ("cost_explanation", "unpriced_reason")


def _cells(log: RequestLog) -> list[Text]:
    status = Text(printable(f"{log.status} {log.status_code or ''}".strip()), style="red" if log.is_error else "")
    return [
        Text(moment(log.timestamp)), shown(log.model_name), shown(log.user_id), status, shown(log.input_tokens),
        shown(log.output_tokens), shown(log.cost), shown(log.duration_ms), shown(log.request_id),
    ]  # fmt: skip


def show_logs(console: Console, logs: Iterable[RequestLog]) -> None:
    rows = table(*COLUMNS, numbers=NUMBERS)
    for log in logs:
        rows.add_row(*_cells(log))
    console.print(rows)


def show_page(console: Console, page: RequestLogPage) -> None:
    show_logs(console, page.logs)
    about = "about " if page.total_count_is_approximate else ""
    console.print(f"{len(page.logs):,} of {about}{page.total_count:,}", highlight=False)
    if page.next_page_token:
        console.print(f"more: --page-token {page.next_page_token}   or --all", highlight=False, soft_wrap=True)


def show_line(console: Console, log: RequestLog) -> None:
    """One log of a stream, whose widths nobody knows."""
    line = Text()
    for name, width, cell in zip(COLUMNS, WIDTHS, _cells(log), strict=True):
        if width and name not in NUMBERS:
            cell.truncate(width, overflow="ellipsis")
        cell.align("right" if name in NUMBERS else "left", max(width, len(cell)))
        line.append_text(cell).append("  ")
    console.print(line, soft_wrap=True)


def show_log(console: Console, log: ExplainedLog, *, explain: bool) -> None:
    """Every field that says something, the bodies last; with `explain`, how the cost came about."""
    fields = table("field", "value")
    for name, value in msgspec.structs.asdict(log).items():
        if name not in (*BODIES, *CHARGES) and value not in (None, "", [], {}):
            fields.add_row(name, _field(name, value))
    console.print(fields)
    for name in BODIES:
        if (value := getattr(log, name)) is not None:
            console.print(Text(name, style="bold"))
            console.print(Text("\n".join(map(printable, json.dumps(value, ensure_ascii=False, indent=2).split("\n")))))
    if explain:
        _show_charges(console, log)


def _field(name: str, value: Any) -> Text:
    if isinstance(value, dict):
        return Text(printable(json.dumps(value, ensure_ascii=False)))
    return Text(str(value)) if name == "fee_rate" else shown(value)


def _show_charges(console: Console, log: ExplainedLog) -> None:
    why = log.cost_explanation
    if why is None:
        reason = f" ({log.unpriced_reason})" if log.unpriced_reason else ""
        console.print(f"The cost is unknown{reason}.", highlight=False)
        return
    console.print(Text(f"price {printable(why.price)} of {printable(why.price_version)}"))
    charges = table("bucket", "unit", "quantity", "price", "amount", numbers=("quantity", "price", "amount"))
    for charge in why.charges:
        price = f"{dollars(charge.usd)} / {charge.per:,}"
        quantity = format(charge.quantity.normalize(), ",f")
        charges.add_row(charge.bucket, shown(charge.unit), quantity, price, dollars(charge.amount_usd))
    if why.rounding_usd:
        charges.add_row("", "rounding", "", "", dollars(why.rounding_usd))
    if why.fee_rate:
        charges.add_row("", f"fee of {why.fee_rate}", "", "", dollars(why.cost - why.cost_before_fee))
    charges.add_section()
    charges.add_row("", "cost", "", "", dollars(why.cost))
    console.print(charges)


def show_stats(console: Console, answer: RequestLogStats, group_by: str, metric: str) -> None:
    """A row a group, with a bar of the metric, which they are ordered by."""
    names = (group_by, "requests", "errors", "in", "out", "cost", "p50 ms", "p95 ms")
    rows = table(*names, "", numbers=names[1:])
    values = [float(one.value or 0) for one in answer.stats]
    for one, value in zip(answer.stats, values, strict=True):
        cells = (one.count, one.error_count, one.input_tokens, one.output_tokens, one.cost)
        latency = (_whole(one.p50_duration_ms), _whole(one.p95_duration_ms))
        rows.add_row(shown(one.group or "(none)"), *map(shown, (*cells, *latency)), bar(value, max(values)))
    console.print(f"{metric} by {group_by}", style="bold", highlight=False)
    console.print(rows)
    unpriced = f", {answer.unpriced_count:,} of unknown cost" if answer.unpriced_count else ""
    console.print(
        f"{answer.total_count:,} requests, {answer.error_count:,} errors, {dollars(answer.total_cost)}{unpriced}",
        highlight=False,
    )
    if answer.truncated:
        console.print("There are more groups: --limit", highlight=False)


def _whole(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds)


def bar(value: float | int | Decimal, largest: float | int | Decimal) -> RenderableType:
    """As long as the value is beside the largest one."""
    if largest <= 0:
        return Text("")
    return Bar(float(largest), 0, max(float(value), 0), width=BAR_WIDTH, color=Style(color="cyan").color or "cyan")
