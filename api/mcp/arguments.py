"""The arguments that several tools share: which requests are meant, of which period, in which time zone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import Field, StrictStr, WithJsonSchema, model_validator

from aggregator.times import END_OF_TIME, EPOCH, Span, Timezone
from api.analytics.charts.aggregate_query import GroupKey
from api.analytics.filters.fields import GROUP_FIELDS
from api.analytics.filters.tree import Filter, FilterGroup, semantic
from api.analytics.request import Body, RequestQuery
from api.errors import invalid_argument
from api.mcp.context import ToolContext
from api.mcp.periods import ALLOWED, MICROSECOND, PeriodError, span_before, span_of
from api.wire_types import rfc3339

METADATA = "metadata."
PREVIOUS = "previous"
MAX_FILTERS = 20

# The fields and operators are not listed here: a client pays for every word of a schema, with every question.
ToolFilters = Annotated[
    list[Filter],
    Field(max_length=MAX_FILTERS),
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "operator": {"type": "string"},
                    "value": {},
                    "nested_key": {"type": "string"},
                },
                "required": ["field", "operator"],
            },
        }
    ),
]


class RequestArguments(Body):
    """Which requests are meant."""

    period: StrictStr = Field(
        "last_30_days",
        description="today, yesterday, this_week, last_week (Monday to Sunday), this_month, last_month, last_N_hours,"
        " last_N_days (until now), or START/END: dates or ISO 8601 times; END is not in it.",
    )
    timezone: Timezone = Field("UTC", description="IANA time zone of the period and of days, e.g. Europe/Berlin.")
    filters: ToolFilters = Field(
        [],
        description="All must hold. Fields and operators are those of describe_data, e.g."
        ' {"field":"engine","operator":"in","value":["gpt-5"]}, {"field":"provider_type","operator":"is","value":'
        '"anthropic"}, {"field":"metadata","nested_key":"team","operator":"key_equals","value":"search"}.',
    )

    @model_validator(mode="after")
    def _times_are_in_the_period(self) -> Self:
        for number, each in enumerate(self.filters):
            if each.field == "request_start_time":
                raise semantic(f"filters[{number}].field", "the times of requests are given by `period`")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def span(self, context: ToolContext) -> Span:
        """Raises ApiError 400."""
        with errors_about("period"):
            return span_of(self.period, self.zone, context.now)

    def span_before(self, before: str, context: ToolContext) -> Span:
        """The period that `before` names, which may be `previous`. Raises ApiError 400."""
        with errors_about("before"):
            if before == PREVIOUS:
                return span_before(self.period, self.zone, context.now)
            return span_of(before, self.zone, context.now)

    def query(self, span: Span, words: str | None = None) -> RequestQuery:
        """The question in the language of request analytics."""
        return RequestQuery(filter_group=FilterGroup(filters=[_within(span), *self.filters]), q=words)

    def described(self, span: Span) -> str:
        """The period and the filters, in words."""
        terms = [f"{each.field}{_key(each)} {each.operator} {_value(each)}".rstrip() for each in self.filters]
        return " and ".join([in_words(span, self.zone), *terms])


@contextmanager
def errors_about(argument: str) -> Iterator[None]:
    """Raises ApiError 400 about the argument for a text that is no period."""
    try:
        yield
    except PeriodError as error:
        raise invalid_argument(argument, str(error), ALLOWED) from None


def in_words(span: Span, zone: ZoneInfo) -> str:
    moments = (moment.astimezone(zone).isoformat(timespec="auto") for moment in (span.start, span.end) if moment)
    return "from {} to before {}".format(*moments)


def _within(span: Span) -> Filter:
    """The filter of start times that leaves exactly the span, which has a start and an end."""
    bounds = [(span.start or EPOCH), (span.end or END_OF_TIME) - MICROSECOND]
    return Filter(field="request_start_time", operator="between", value=[rfc3339(bound) for bound in bounds])


def _key(each: Filter) -> str:
    return f".{each.nested_key}" if each.nested_key is not None else ""


def _value(each: Filter) -> Any:
    return "" if each.value is None else each.value


def group_key(name: str, argument: str, also: Iterable[str] = ()) -> GroupKey:
    """The group that `name` means; `also` is allowed there, too. Raises ApiError 400 for what is none."""
    if name.startswith(METADATA):
        key = name.removeprefix(METADATA)
        if not 0 < len(key) <= 120:
            raise invalid_argument(argument, "a metadata key has 1 to 120 characters")
        return GroupKey("metadata", key)
    if name not in GROUP_FIELDS:
        raise invalid_argument(argument, f"{name!r} is nothing to group by", (*GROUP_FIELDS, "metadata.KEY", *also))
    return GroupKey(name)
