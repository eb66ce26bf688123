"""The part of a request that search and analytics share: filter, text search and order."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, StrictStr, field_validator, model_validator
from pydantic.config import JsonDict

from api.analytics.filters.fields import BY_NAME
from api.analytics.filters.tree import FilterGroup, FilterTree, check_text, semantic

EXAMPLE_FILTER: JsonDict = {
    "logic": "AND",
    "filters": [
        {"field": "request_start_time", "operator": "after", "value": "2026-01-01"},
        {"field": "metadata", "operator": "key_equals", "nested_key": "team", "value": "search"},
    ],
}


class SortBy(StrEnum):
    REQUEST_START_TIME = "request_start_time"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST = "cost"
    LATENCY_MS = "latency_ms"
    STATUS = "status"
    TURN_COUNT = "turn_count"
    TOOL_CALL_COUNT = "tool_call_count"


class SortOrder(StrEnum):
    ASC = "asc"
    DESC = "desc"


class Body(BaseModel):
    """A part of a request: unknown properties are refused, since a typo must never widen a query."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RequestQuery(Body):
    """Which requests are meant. A property that is null is as good as left out."""

    filter_group: FilterTree | None = Field(None, description="Which requests are meant; without it, all.")
    q: StrictStr | None = Field(
        None, description="Words that begin words of the input or output text; without it, any text."
    )
    sort_by: SortBy | None = Field(
        None, description="What is found is ordered by it; by default the start of the request. Analytics ignore it."
    )
    sort_order: SortOrder | None = Field(None, description="Only with `sort_by`; `desc` by default.")

    @field_validator("q")
    @classmethod
    def _check_q(cls, value: str | None) -> str | None:
        check_text(value or "", "")
        return value

    @model_validator(mode="after")
    def _order_of_something(self) -> Self:
        if self.sort_by is None and self.sort_order is not None:
            raise semantic("sort_by", "is needed with sort_order")
        return self


class RequestLogQuery(RequestQuery):
    """The query of search and analytics."""

    metadata_cost_breakdown_key: StrictStr | None = Field(
        None,
        description="Metadata key whose values `metadataValueBreakdown` of the analytics is about; without it, all"
        " keys.",
    )

    @field_validator("metadata_cost_breakdown_key")
    @classmethod
    def _check_key(cls, value: str | None) -> str | None:
        check_text(value or "", "")
        return value


def _fields_of(tree: FilterGroup) -> Iterator[str]:
    for part in tree.filters:
        yield from _fields_of(part) if isinstance(part, FilterGroup) else (part.field,)


def asks_for_content(query: RequestQuery, others: Iterable[str] = ()) -> bool:
    """Whether the answer would reveal what people or models wrote. `others` are fields that the request names beside
    its filter."""
    tree = query.filter_group or FilterGroup(filters=[])
    named = (*_fields_of(tree), *others)
    return query.q is not None or any(BY_NAME[name].is_content for name in named if name in BY_NAME)
