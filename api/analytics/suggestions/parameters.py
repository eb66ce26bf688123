"""The query parameters of suggestions."""

import json
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from api.analytics.errors import describe
from api.analytics.filters.fields import BY_NAME
from api.analytics.filters.tree import check_text, semantic
from api.analytics.request import RequestQuery
from api.errors import ApiError
from api.parameters import QueryParameters


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


class SuggestionParameters(QueryParameters):
    model_config = ConfigDict(hide_input_in_errors=True)

    field: SuggestedField = Field(description="Whose values are suggested; `prompt` is the name of a prompt.")
    prefix: str = Field(
        "", description="What the values begin with, in any case; without it, anything.", examples=["gpt"]
    )
    metadata_key: str | None = Field(
        None, description="The dotted key whose values are asked for. Required with `*_values`, and only there."
    )
    prompt_id: Annotated[int, Field(ge=1)] | None = Field(
        None, description="With `prompt`: only names of this prompt; without it, of all."
    )
    filter_group: str | None = Field(
        None, description="Only values of these requests: a filter group as JSON; without it, of all."
    )

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
