"""Values that fit what somebody has begun to type into a filter.

What a rollup holds is answered from it, over all time. Everything else is looked for in the newest requests only, so
that an answer over a billion rows takes no longer than over a million.
"""

import json
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from aggregator.rollups.measures import REQUESTS
from aggregator.rollups.planner import Condition, Question, compile_answer, plan
from aggregator.times import Span
from api.analytics.errors import describe
from api.analytics.filters.compile import Binder, nested_values
from api.analytics.filters.fields import BY_NAME, Kind
from api.analytics.filters.tree import check_text, semantic
from api.analytics.request import RequestQuery, span_and_condition_of, times_of
from api.errors import ApiError
from api.security.reader import Reader

MAX_VALUES = 50
NEWEST_ROWS = 1_000_000
# Nobody has more models, providers or words for a status.
MAX_GROUPS = 10_000

NEWEST = "SELECT timestamp FROM request_logs WHERE {times} ORDER BY timestamp DESC LIMIT 1 OFFSET {offset}"


class SuggestedField(StrEnum):
    ENGINE = "engine"
    PROVIDER_TYPE = "provider_type"
    PROMPT_ID = "prompt_id"
    PROMPT = "prompt"
    TAGS = "tags"
    METADATA_KEYS = "metadata_keys"
    STATUS = "status"
    TOOL_NAMES = "tool_names"
    OUTPUT_KEYS = "output_keys"
    INPUT_VARIABLE_KEYS = "input_variable_keys"
    METADATA_VALUES = "metadata_values"
    OUTPUT_VALUES = "output_values"
    INPUT_VARIABLE_VALUES = "input_variable_values"


# Fields of the filter language whose values under a key are suggested.
NESTED = {
    SuggestedField.METADATA_VALUES: "metadata",
    SuggestedField.OUTPUT_VALUES: "output",
    SuggestedField.INPUT_VARIABLE_VALUES: "input_variables",
}


class SuggestionParameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    field: SuggestedField = Field(description="What is filtered by; `prompt` is the name of a prompt.")
    prefix: str = Field("", description="What the values begin with, in any case.", examples=["gpt"])
    metadata_key: str | None = Field(None, description="The dotted key whose values are asked for, with `*_values`.")
    prompt_id: Annotated[int, Field(ge=1)] | None = Field(None, description="Only names of this prompt.")
    filter_group: str | None = Field(None, description="Only values of these requests: a filter group as JSON.")

    @field_validator("prefix", "metadata_key", "filter_group")
    @classmethod
    def _check_text(cls, value: str | None) -> str | None:
        check_text(value or "", "")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.field in NESTED) != (self.metadata_key is not None):
            reason = "is needed with" if self.field in NESTED else "has no meaning with"
            raise semantic("metadata_key", f"{reason} {self.field.value}")
        if self.prompt_id is not None and self.field is not SuggestedField.PROMPT:
            raise semantic("prompt_id", f"has no meaning with {self.field.value}")
        return self

    @property
    def query(self) -> RequestQuery:
        """The filter as the other endpoints take it. Raises ApiError 400 or 422."""
        try:
            tree = json.loads(self.filter_group or "null")
            return RequestQuery.model_validate({"filter_group": tree})
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            status, message = describe({**each, "loc": ("query", *each["loc"])} for each in found)
            raise ApiError(status, message) from error
        except (ValueError, RecursionError) as error:
            raise ApiError(422, "filter_group: is not valid JSON") from error

    @property
    def asks_for_content(self) -> bool:
        field = BY_NAME.get(NESTED.get(self.field, self.field))
        return field is not None and field.is_content


class SuggestionAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"success": True, "values": ["gpt-5", "gpt-5-mini"]}]})

    success: Literal[True] = True
    values: list[str] = Field(description=f"The most frequent first, at most {MAX_VALUES}.")


def answer_suggestions(reader: Reader, parameters: SuggestionParameters, query: RequestQuery) -> SuggestionAnswer:
    span, condition = span_and_condition_of(query)
    question = reader.confine(_question(parameters, span, condition))
    if question.group_by is not None and plan(question).rollup is not None:
        return SuggestionAnswer(values=_from_rollup(reader, parameters, question))
    return SuggestionAnswer(values=_from_rows(reader, parameters, span, condition))


def _question(parameters: SuggestionParameters, span: Span, condition: Condition) -> Question:
    field = BY_NAME.get(parameters.field)
    return Question((REQUESTS,), span, group_by=field.dimension if field else None, condition=condition)


def _from_rollup(reader: Reader, parameters: SuggestionParameters, question: Question) -> list[str]:
    rows = reader.query(*compile_answer(question, "requests DESC, group_key", MAX_GROUPS))
    names = [row["group_key"] for row in rows if not row["is_total"]]
    wanted = parameters.prefix.lower()
    return [name for name in names if name and name.lower().startswith(wanted)][:MAX_VALUES]


def _values(parameters: SuggestionParameters, binder: Binder) -> str:
    """SQL for the values of one row, a row each."""
    if parameters.field in NESTED:
        spec = BY_NAME[NESTED[parameters.field]]
        return f"arrayJoin(arrayDistinct({nested_values(spec, parameters.metadata_key or '', binder)}))"
    if parameters.field is SuggestedField.PROMPT:
        return "prompt_name"
    spec = BY_NAME[parameters.field]
    return f"arrayJoin(arrayDistinct({spec.column}))" if spec.kind is Kind.ARRAY else spec.column


def _from_rows(reader: Reader, parameters: SuggestionParameters, span: Span, condition: Condition) -> list[str]:
    binder = Binder("s")
    oldest = reader.query(NEWEST.format(times=times_of(span), offset=NEWEST_ROWS), {})
    if oldest:
        span = replace(span, start=oldest[0]["timestamp"])
    where = [times_of(span), condition.sql]
    if parameters.prompt_id is not None:
        where.append(f"prompt_id = {binder.text(str(parameters.prompt_id))}")
    sql = (
        f"SELECT value FROM (\nSELECT {_values(parameters, binder)} AS value\nFROM request_logs"
        f" WHERE {' AND '.join(where)}\n)\n"
        f"WHERE value != '' AND startsWith(lowerUTF8(value), lowerUTF8({binder.text(parameters.prefix)}))\n"
        f"GROUP BY value ORDER BY count() DESC, value LIMIT {MAX_VALUES}"
    )
    rows = reader.query(sql, {**condition.parameters, **binder.parameters})
    return [row["value"] for row in rows]
