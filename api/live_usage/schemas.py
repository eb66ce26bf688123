"""What the endpoints of live usage answer with."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from aggregator.budgets.budget import plain


class MinuteUsage(BaseModel):
    minute: datetime = Field(description="When it began.")
    requests: int = 0
    errors: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Annotated[Decimal, PlainSerializer(plain, return_type=str)] = Field(Decimal(0), description="Dollars.")
    avg_duration_ms: float | None = None


EXAMPLE_MINUTE: dict[str, Any] = {
    "minute": "2026-11-24T12:00:00Z",
    "requests": 312,
    "errors": 2,
    "unpriced": 2,
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
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_LIVE]})

    as_of: datetime
    current: MinuteUsage = Field(description="The minute that is not over yet.")
    minutes: list[MinuteUsage] = Field(description="The sixty before it, newest first; those without requests too.")
