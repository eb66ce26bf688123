"""What the endpoints of live usage answer with."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from aggregator.budgets.budget import plain


class MinuteUsage(BaseModel):
    """What was used in one minute."""

    minute: datetime = Field(description="When the minute began, UTC.")
    requests: int = Field(0, description="Requests.")
    errors: int = Field(0, description="Requests that failed.")
    unpriced: int = Field(0, description="Requests with usage and no known price, which `cost` leaves out.")
    missing_usage: int = Field(0, description="Requests that succeeded and reported no usage.")
    failed_without_usage: int = Field(0, description="Requests that failed and reported no usage.")
    input_tokens: int = Field(0, description="Tokens of the prompts.")
    output_tokens: int = Field(0, description="Tokens of the answers.")
    cost: Annotated[Decimal, PlainSerializer(plain, return_type=str)] = Field(
        Decimal(0), description="Dollars, fee included."
    )
    avg_duration_ms: float | None = Field(
        None, description="Milliseconds, the average; null when no duration is known."
    )


EXAMPLE_MINUTE: dict[str, Any] = {
    "minute": "2026-11-24T12:00:00Z",
    "requests": 312,
    "errors": 2,
    "unpriced": 0,
    "missing_usage": 1,
    "failed_without_usage": 2,
    "input_tokens": 402110,
    "output_tokens": 90120,
    "cost": "1.904",
    "avg_duration_ms": 2310.5,
}
EXAMPLE_LIVE: dict[str, Any] = {
    "as_of": "2026-11-24T12:00:31Z",
    "current": EXAMPLE_MINUTE,
    "minutes": [EXAMPLE_MINUTE],
}


class LiveUsage(BaseModel):
    """What is used now, and was in the hour before."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_LIVE]})

    as_of: datetime = Field(description="When this was read, UTC.")
    current: MinuteUsage = Field(description="The minute that is not over yet.")
    minutes: list[MinuteUsage] = Field(description="The sixty before it, newest first; those without requests too.")
