"""`insights request-logs`: ask the API for logs, one log, statistics."""

import time
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console

from api.request_logs.parameters import GroupBy, OrderBy, OrderDirection, StatsMetric
from cli.api_connection import DEFAULT_DIRECTORY, ApiKey, ApiUrl, DataDirectory, connect
from cli.options import moment
from cli.output.formats import Output, OutputFormat, chosen, write_answer, write_rows
from cli.output.request_logs import show_line, show_log, show_logs, show_page, show_stats
from router_insights import Client, RequestLog

app = typer.Typer(add_completion=False, no_args_is_help=True)

FOLLOW_SECONDS = 1.0
# A log is followed unless it is stored this much later than another, or after a page of newer ones.
LATENESS = timedelta(minutes=5)
FOLLOWED_PAGE_SIZE = 100

Since = Annotated[
    datetime | None,
    typer.Option("--from", "--start-time", parser=moment, metavar="TIME", help="Inclusive: RFC 3339, or a date (UTC)."),
]
Until = Annotated[
    datetime | None,
    typer.Option("--to", "--end-time", parser=moment, metavar="TIME", help="Exclusive: RFC 3339, or a date (UTC)."),
]
User = Annotated[str | None, typer.Option("--user-id", "--user", metavar="ID", help="Only of this user.")]
Model = Annotated[str | None, typer.Option("--model-name", "--model", metavar="NAME", help="Only of this model.")]
IsError = Annotated[
    bool | None, typer.Option("--is-error/--no-error", help="Only requests that failed, or only the others.")
]


@app.command("query")
def query(
    user_id: User = None,
    api_key_id: Annotated[str | None, typer.Option(metavar="ID", help="Only of this key of the gateway.")] = None,
    model_name: Model = None,
    status: Annotated[str | None, typer.Option(metavar="WORD", help="Only of this status, like success.")] = None,
    is_error: IsError = None,
    status_code: Annotated[int | None, typer.Option(metavar="CODE", help="Only with this HTTP status.")] = None,
    start_time: Since = None,
    end_time: Until = None,
    min_duration_ms: Annotated[int | None, typer.Option(metavar="MS", help="Only as slow as this, or slower.")] = None,
    max_duration_ms: Annotated[int | None, typer.Option(metavar="MS", help="Only as fast as this, or faster.")] = None,
    order_by: Annotated[OrderBy, typer.Option(help="What they are ordered by.")] = OrderBy.TIMESTAMP,
    order_direction: Annotated[OrderDirection, typer.Option(help="Newest or largest first.")] = OrderDirection.DESC,
    page_size: Annotated[
        int | None, typer.Option(metavar="N", help="Logs of a page: 1 to 1000, 50 without it.")
    ] = None,
    page_token: Annotated[str, typer.Option(metavar="TOKEN", help="The page that an earlier one named.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every page. json is then an array of logs.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then wait for new ones, until Ctrl-C.")] = False,
    output: Output = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDirectory = DEFAULT_DIRECTORY,
) -> None:
    """A page of logs, newest first; filters are joined by AND. Text that is empty, and a 0, filter nothing."""
    filters = {
        "user_id": user_id, "api_key_id": api_key_id, "model_name": model_name, "status": status,
        "is_error": is_error, "status_code": status_code, "start_time": start_time, "end_time": end_time,
        "min_duration_ms": min_duration_ms, "max_duration_ms": max_duration_ms,
    }  # fmt: skip
    ordered = {**filters, "order_by": order_by, "order_direction": order_direction}
    if follow:
        _check_follow(everything, page_token, order_by, order_direction, end_time)
        output = OutputFormat.NDJSON if output is None and chosen(output) is OutputFormat.JSON else output
    form = chosen(output)
    with connect(api_url, api_key, data_dir) as client:
        if follow:
            _print_stream(form, _followed(client, filters, page_size))
        elif everything:
            pages = {**ordered, "page_token": page_token or None}
            _print_all(
                form, client.request_logs.iter_request_logs(pages | ({"page_size": page_size} if page_size else {}))
            )
        else:
            _print_page(form, client, {**ordered, "page_size": page_size, "page_token": page_token or None})


def _check_follow(
    everything: bool, page_token: str, order_by: OrderBy, order_direction: OrderDirection, end_time: datetime | None
) -> None:
    given = {
        "--all": everything,
        "--page-token": page_token != "",
        "--to": end_time is not None,
        "--order-by": order_by is not OrderBy.TIMESTAMP,
        "--order-direction": order_direction is not OrderDirection.DESC,
    }
    for option in [name for name, is_given in given.items() if is_given]:
        raise typer.BadParameter(f"--follow shows new logs as they come, it does not go with {option}")


def _print_page(form: OutputFormat, client: Client, wanted: dict[str, Any]) -> None:
    page = client.request_logs.query_request_logs(wanted)
    write_answer(form, page, page.logs, RequestLog, lambda console: show_page(console, page))


def _print_all(form: OutputFormat, logs: Iterator[RequestLog]) -> None:
    if form is OutputFormat.TABLE:
        show_logs(Console(), logs)
    else:
        write_rows(form, logs, RequestLog)


def _print_stream(form: OutputFormat, logs: Iterator[RequestLog]) -> None:
    if form is OutputFormat.TABLE:
        console = Console()
        for log in logs:
            show_line(console, log)
    elif form is OutputFormat.NDJSON:
        write_rows(form, logs, RequestLog)
    else:
        raise typer.BadParameter(f"--follow never ends, and {form} must: use --output table or ndjson")


def _followed(client: Client, filters: dict[str, Any], page_size: int | None) -> Iterator[RequestLog]:
    """The newest page, oldest first, then every log that was not seen before."""
    page = client.request_logs.query_request_logs({**filters, "page_size": page_size}).logs
    # Of what began after this, everything was seen: logs of a page have no others between them.
    since = page[-1].timestamp if page else None
    seen: dict[str, datetime] = {}
    while True:
        yield from reversed(page)
        seen |= {log.id: log.timestamp for log in page}
        if seen and since is not None:
            since = max(since, max(seen.values()) - LATENESS)
            seen = {id: timestamp for id, timestamp in seen.items() if timestamp >= since}
        time.sleep(FOLLOW_SECONDS)
        page = _unseen(client, {**filters, **({"start_time": since} if since else {})}, seen)
        since = since or min((log.timestamp for log in page), default=None)


def _unseen(client: Client, wanted: dict[str, Any], seen: Collection[str]) -> list[RequestLog]:
    """Newest first, down to the first page of which all have been seen."""
    fresh: list[RequestLog] = []
    token: str | None = None
    while True:
        page = client.request_logs.query_request_logs({**wanted, "page_size": FOLLOWED_PAGE_SIZE, "page_token": token})
        unseen = [log for log in page.logs if log.id not in seen]
        fresh += unseen
        token = page.next_page_token
        if not unseen or not token:
            return fresh


@app.command("get")
def get(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Its request id.")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how its cost came about; json always has it.")
    ] = False,
    output: Output = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDirectory = DEFAULT_DIRECTORY,
) -> None:
    """One log, with its bodies."""
    form = chosen(output)
    with connect(api_url, api_key, data_dir) as client:
        try:
            log = client.request_logs.get_request_log(request_id)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    write_answer(form, log, [log], type(log), lambda console: show_log(console, log, explain=explain))


@app.command("stats")
def stats(
    group_by: Annotated[GroupBy, typer.Option(help="What a group is.")] = GroupBy.MODEL,
    metric: Annotated[StatsMetric, typer.Option(help="What groups are ordered by.")] = StatsMetric.COUNT,
    user_id: User = None,
    model_name: Model = None,
    is_error: IsError = None,
    start_time: Since = None,
    end_time: Until = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="IANA time zone of hours and days.")] = "UTC",
    limit: Annotated[int | None, typer.Option(metavar="N", help="Groups at most.")] = None,
    output: Output = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDirectory = DEFAULT_DIRECTORY,
) -> None:
    """Requests, errors, tokens, dollars and latency by group, and of all."""
    form = chosen(output)
    wanted = {
        "group_by": group_by, "metric": metric, "user_id": user_id, "model_name": model_name,
        "is_error": is_error, "start_time": start_time, "end_time": end_time, "timezone": timezone, "limit": limit,
    }  # fmt: skip
    with connect(api_url, api_key, data_dir) as client:
        answer = client.request_logs.get_request_log_stats(wanted)
    write_answer(
        form, answer, answer.stats, answer.row_type, lambda console: show_stats(console, answer, group_by, metric)
    )
