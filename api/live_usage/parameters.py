"""The query parameters of live usage."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from aggregator.budgets.subject import MAX_VALUE_CHARACTERS, SubjectKind
from api.parameters import QueryParameters


class LiveParameters(QueryParameters):
    scope: SubjectKind = Field(
        SubjectKind.TOTAL,
        description="Whose usage: everything (`total`, the default), or that of one model, user, api key or tag.",
    )
    value: str = Field(
        "",
        max_length=MAX_VALUE_CHARACTERS,
        description="Name of the model, user, api key or tag; left out for the total.",
        examples=["gpt-5-mini"],
    )

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if (self.scope is SubjectKind.TOTAL) == bool(self.value):
            message = "must be empty for the total, and name one of any other scope"
            raise PydanticCustomError("value", message, {"messages": {"value": message}})
        return self
