"""The tool `aggregate`: metrics of requests, as a total and by group."""

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import Field, StrictInt, StrictStr

from aggregator.rollups.measures import Bucket
from aggregator.times import Span
from api.analytics.charts.aggregate_query import AggregateRow, Grouping, GroupKey, Key, TimeKey
from api.analytics.charts.time_buckets import about_count, key_of
from api.analytics.where import RequestFilter
from api.errors import invalid_argument
from api.mcp.aggregates import OF_COST, Aggregates
from api.mcp.arguments import RequestArguments, group_key
from api.mcp.console_links import ConsolePage, of_requests, short_name
from api.mcp.context import ToolAnswer, ToolContext
from api.mcp.metrics import parse_metric

TIMES = {name: Bucket(name) for name in ("hour", "day", "week", "month")}
# Of groups times buckets: what a model can still read.
MAX_ROWS = 200


class AggregateArguments(RequestArguments):
    metrics: Annotated[list[StrictStr], Field(min_length=1, max_length=8)] = Field(
        description="requests, errors, unpriced, missing_usage, failed_without_usage, cost (dollars), input_tokens,"
        " output_tokens, cached_tokens, thinking_tokens, turn_count, tool_call_count, latency_ms: sums; or avg:, min:,"
        " max:, p95: (any pN) before a field, e.g. p95:latency_ms; or distinct:METADATA_KEY. Groups come largest first"
        " in the first metric."
    )
    group_by: Annotated[list[StrictStr], Field(max_length=2)] = Field(
        [],
        description="None, one or two of: engine (model), provider_type, user_id, api_key_id, status, error_type,"
        " session_id, prompt_id, tags, tool_names, metadata.KEY, hour, day, week, month.",
    )
    words: StrictStr | None = Field(None, description="Words in the text of prompt or answer.")
    limit: Annotated[StrictInt, Field(ge=1, le=50)] = Field(10, description="Groups at most.")


def answer_aggregate(context: ToolContext, asked: AggregateArguments) -> ToolAnswer:
    metrics = [parse_metric(text, f"metrics[{number}]") for number, text in enumerate(asked.metrics)]
    groups, bucket = _groups(asked.group_by)
    span = asked.span(context)
    if bucket:
        _check_size(bucket, span, asked.limit if groups else 1)
    context.admit(asked.query(span, asked.words), [group.field for group in groups])
    aggregates = Aggregates(context, asked, metrics)
    request_filter = aggregates.filter(span, asked.words)
    rows, has_more = _rows(aggregates, request_filter, groups, bucket, asked)
    ((total,),) = aggregates.run(request_filter, [aggregates.query()])
    names = [name for name in asked.group_by if name not in TIMES] + [name for name in asked.group_by if name in TIMES]
    content: dict[str, Any] = {"total": aggregates.written(total)}
    if names:
        written = [
            dict(zip(names, _labels(row, bucket, asked.zone), strict=True)) | aggregates.written(row) for row in rows
        ]
        content |= {"rows": written, "more_groups": has_more}
    content["how"] = {
        "computed": f"{', '.join(asked.metrics)} of requests {asked.described(span)}",
        "read_from": aggregates.source(request_filter, aggregates.query(_grouping(groups, bucket, asked.timezone))),
    }
    return ToolAnswer(
        content,
        of_requests(
            ConsolePage.EXPLORE, span, asked.timezone, asked.filters,
            metric=",".join(asked.metrics), by=",".join(map(short_name, asked.group_by)), q=asked.words,
        ),
        aggregates.exactness([total, *rows]),
        span,
        asked.timezone,
        _notes(names, groups, bool(content["total"].get("requests_without_cost"))),
    )  # fmt: skip


def _groups(names: list[str]) -> tuple[list[GroupKey], Bucket | None]:
    """Raises ApiError 400 for what nothing can be grouped by, or not by both."""
    buckets = [TIMES[name] for name in names if name in TIMES]
    if len(buckets) > 1:
        raise invalid_argument("group_by", "takes one of hour, day, week and month")
    groups = [group_key(name, f"group_by[{n}]", also=TIMES) for n, name in enumerate(names) if name not in TIMES]
    if len(groups) == 2 and groups[0] == groups[1]:
        raise invalid_argument("group_by[1]", f"{names[1]!r} is grouped by already")
    return groups, buckets[0] if buckets else None


def _check_size(bucket: Bucket, span: Span, groups: int) -> None:
    """Raises ApiError 400 for too many buckets of time."""
    assert span.start is not None and span.end is not None  # noqa: S101, PT018 - every period has both
    count = about_count(bucket, span.start, span.end)
    if count * groups > MAX_ROWS:
        more = f" of {groups} groups each (`limit`)" if groups > 1 else ""
        message = f"the period has about {count:.0f} buckets of a {bucket}{more}, at most {MAX_ROWS} rows are answered"
        raise invalid_argument("group_by", f"{message}; narrow the period, or take wider buckets", TIMES)


def _grouping(groups: list[GroupKey], bucket: Bucket | None, timezone: str, within: Any = ()) -> Grouping:
    keys: list[Key] = [*groups, *([TimeKey(bucket, timezone)] if bucket else [])]
    return Grouping(tuple(keys), within)


def _rows(
    aggregates: Aggregates,
    request_filter: RequestFilter,
    groups: list[GroupKey],
    bucket: Bucket | None,
    asked: AggregateArguments,
) -> tuple[list[AggregateRow], bool]:
    """The rows in order, and whether there are more groups. Those over time are of the largest groups of all of it."""
    found: list[AggregateRow] = []
    if groups:
        top = aggregates.query(_grouping(groups, None, asked.timezone), asked.limit + 1)
        (found,) = aggregates.run(request_filter, [top])
    has_more, found = len(found) > asked.limit, found[: asked.limit]
    if bucket is None or (groups and not found):
        return found, has_more
    within = (tuple(row.keys[0] for row in found), None) if groups else ()
    (rows,) = aggregates.run(request_filter, [aggregates.query(_grouping(groups, bucket, asked.timezone, within))])
    order = {row.keys: place for place, row in enumerate(found)}
    return sorted(rows, key=lambda row: (row.keys[-1], order.get(row.keys[:-1], 0))), has_more


def _labels(row: AggregateRow, bucket: Bucket | None, zone: ZoneInfo) -> list[Any]:
    if bucket is None:
        return list(row.keys)
    return [*row.keys[:-1], key_of(bucket, datetime.fromtimestamp(row.keys[-1], UTC).astimezone(zone))]


def _notes(names: list[str], groups: list[GroupKey], leaves_out: bool) -> list[str]:
    notes = []
    if groups:
        notes.append("Rows leave out requests without a value of the group; `total` has them.")
    if any(group.field in ("tags", "tool_names", "metadata", "metadata_keys") for group in groups):
        notes.append("A request with several values counts under each.")
    if len(groups) < len(names):
        notes.append("Times without requests are left out.")
    if leaves_out:
        notes.append(OF_COST)
    return notes
