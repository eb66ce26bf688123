"""What suggestions are answered with."""

from pydantic import BaseModel, ConfigDict, Field

MAX_VALUES = 50


class SuggestionAnswer(BaseModel):
    """Values to filter by."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"success": True, "values": ["gpt-5", "gpt-5-mini"]}]})

    success: bool = Field(description="Always true.")
    values: list[str] = Field(description=f"Values of the field, the most frequent first, at most {MAX_VALUES}.")
