"""The tool `compare_periods`: what changed between two periods, in all and by group, and what made it change."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import Field, StrictInt, StrictStr

from api.analytics.charts.aggregate_query import AggregateRow, Grouping, GroupKey
from api.analytics.charts.metric_sql import COUNT
from api.analytics.where import RequestFilter
from api.errors import invalid_argument
from api.mcp.aggregates import OF_COST, Aggregates
from api.mcp.arguments import PREVIOUS, RequestArguments, group_key, in_words
from api.mcp.console_links import ConsolePage, of_requests, short_name
from api.mcp.context import ToolAnswer, ToolContext, written_span
from api.mcp.metrics import COUNTS, SUMMED, ToolMetric, parse_metric, written

# The largest groups of each period are compared; a group that is in neither has changed by less than the last of them.
MAX_COMPARED = 1_000
EFFECT_PLACES = Decimal("0.000000000001")


class CompareArguments(RequestArguments):
    before: StrictStr = Field(
        PREVIOUS, description="The period to compare with, written like `period`; `previous` is the one before it."
    )
    metric: StrictStr = Field("cost", description="cost, requests, errors, unpriced, input_tokens or another sum.")
    group_by: Annotated[list[StrictStr], Field(min_length=1, max_length=4)] = Field(
        ["engine", "user_id"], description="What the change is broken down by, each on its own; as in aggregate."
    )
    limit: Annotated[StrictInt, Field(ge=1, le=20)] = Field(5, description="Groups of each, largest change first.")


class _Change(NamedTuple):
    label: str
    before: Any
    now: Any

    @property
    def size(self) -> Any:
        return self.now - self.before


class _Periods(NamedTuple):
    """The filters of the period before and of the one that is asked about."""

    before: RequestFilter
    now: RequestFilter


def answer_comparison(context: ToolContext, asked: CompareArguments) -> ToolAnswer:
    metric = _metric(asked.metric)
    groups = [group_key(name, f"group_by[{n}]") for n, name in enumerate(asked.group_by)]
    spans = {"before": asked.span_before(asked.before, context), "now": asked.span(context)}
    context.admit(asked.query(spans["now"]), [group.field for group in groups])
    aggregates = Aggregates(context, asked, [metric])
    periods = _Periods(**{name: aggregates.filter(span) for name, span in spans.items()})
    totals = {
        name: aggregates.run(request_filter, [aggregates.query()])[0][0]
        for name, request_filter in periods._asdict().items()
    }
    broken_down = {
        name: _by_group(aggregates, metric, periods, group, asked.limit)
        for name, group in zip(asked.group_by, groups, strict=True)
    }
    content = {
        "metric": metric.name,
        "periods": {name: written_span(span) for name, span in spans.items()},
        "total": {
            "before": aggregates.written(totals["before"]),
            "now": aggregates.written(totals["now"]),
            **_changed(_of(aggregates, metric, totals["before"]), _of(aggregates, metric, totals["now"])),
        },
        "because": _effects(aggregates, metric, totals),
        "by": broken_down,
        "how": {
            "computed": f"{metric.name} of requests {asked.described(spans['now'])}, less that"
            f" {in_words(spans['before'], asked.zone)} with the same filters",
            "read_from": aggregates.source(periods.now, aggregates.query()),
        },
    }
    console = of_requests(
        ConsolePage.SPEND, spans["now"], asked.timezone, asked.filters,
        metric=metric.name, by=",".join(map(short_name, asked.group_by)),
        compare="/".join(written_span(spans["before"]).values()),
    )  # fmt: skip
    return ToolAnswer(content, console, "exact", spans["now"], asked.timezone, _notes(content))


def _metric(text: str) -> ToolMetric:
    """Raises ApiError 400 for a metric whose change cannot be split among groups."""
    metric = parse_metric(text, "metric") if text in (*COUNTS, *SUMMED) else None
    if metric is None:
        raise invalid_argument("metric", f"{text!r} cannot be compared", (*COUNTS, *SUMMED))
    return metric


def _of(aggregates: Aggregates, metric: ToolMetric, row: AggregateRow) -> Any:
    return aggregates.values(row)[metric.value]


def _changed(before: Any, now: Any) -> dict[str, Any]:
    """The change, and its percent of what was before: null where there was nothing."""
    percent = None if not before else round(float((now - before) / before * 100), 1)
    return {"change": written(now - before), "change_percent": percent}


def _effects(aggregates: Aggregates, metric: ToolMetric, totals: Mapping[str, AggregateRow]) -> dict[str, Any] | None:
    """The change as two parts that add up to it: of how many requests there were, at the average of before, and of the
    average of a request. None where there were no requests before, or where requests themselves are compared."""
    (before, requests_before), (now, requests_now) = (
        (_of(aggregates, metric, totals[name]), aggregates.values(totals[name])[COUNT]) for name in ("before", "now")
    )
    if metric.name == "requests" or not requests_before:
        return None
    change = Decimal(now) - Decimal(before)
    of_requests_ = (Decimal(before) * (requests_now - requests_before) / requests_before).quantize(EFFECT_PLACES)
    return {
        "more_or_fewer_requests": written(of_requests_),
        "more_or_less_per_request": written(change - of_requests_),
        "requests": {"before": requests_before, "now": requests_now},
    }


def _by_group(
    aggregates: Aggregates, metric: ToolMetric, periods: _Periods, group: GroupKey, limit: int
) -> dict[str, Any]:
    """The groups that changed most. Each value is exact; so is the choice, unless it says otherwise."""
    tops = [aggregates.run(period, [aggregates.query(Grouping((group,)), MAX_COMPARED)])[0] for period in periods]
    labels = tuple(dict.fromkeys(row.keys[0] for rows in tops for row in rows))
    if not labels:
        return {"groups": [], "more_groups": False}
    within = Grouping((group,), (labels,))
    before, now = (
        {row.keys[0]: _of(aggregates, metric, row) for row in aggregates.run(period, [aggregates.query(within)])[0]}
        for period in periods
    )
    changes = [_Change(label, before.get(label, 0), now.get(label, 0)) for label in labels]
    changes.sort(key=lambda change: (-abs(change.size), change.label))
    shown = changes[:limit]
    is_sure = all(len(rows) < MAX_COMPARED or _least(aggregates, metric, rows) <= abs(shown[-1].size) for rows in tops)
    return {
        "groups": [
            {"group": each.label, "before": written(each.before), "now": written(each.now)}
            | _changed(each.before, each.now)
            for each in shown
        ],
        "more_groups": len(changes) > limit,
        **({} if is_sure else {"others_may_have_changed_more": f"only the {MAX_COMPARED} largest were compared"}),
    }


def _least(aggregates: Aggregates, metric: ToolMetric, rows: list[AggregateRow]) -> Any:
    return _of(aggregates, metric, rows[-1])


def _notes(content: Mapping[str, Any]) -> list[str]:
    leaves_out = any(content["total"][name].get("requests_without_cost") for name in ("before", "now"))
    return [OF_COST] if leaves_out else []
