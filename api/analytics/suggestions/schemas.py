"""What suggestions are answered with."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_VALUES = 50


class SuggestionAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"success": True, "values": ["gpt-5", "gpt-5-mini"]}]})

    success: Literal[True] = True
    values: list[str] = Field(description=f"The most frequent first, at most {MAX_VALUES}.")
