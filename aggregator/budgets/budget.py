"""A budget: how much a subject may use in a period, and at which shares of it an alert is given."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from aggregator.budgets.period import BudgetPeriod, rolling_span, span_of
from aggregator.budgets.subject import Subject
from aggregator.times import Timezone

# Sums of dollars are Decimal(38, 12) in ClickHouse.
MAX_LIMIT = 10**15


class BudgetUnit(StrEnum):
    DOLLARS = "dollars"
    TOKENS = "tokens"
    REQUESTS = "requests"


class BudgetLevel(StrEnum):
    OK = "ok"
    WARNING = "warning"
    EXCEEDED = "exceeded"


def _ascending(percents: tuple[int, ...]) -> tuple[int, ...]:
    if list(percents) != sorted(set(percents)):
        raise PydanticCustomError("thresholds", "must be in ascending order, none twice")
    return percents


def plain(number: Decimal) -> str:
    """Without an exponent and without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


Amount = Annotated[Decimal, PlainSerializer(plain, return_type=str)]
Percent = Annotated[int, Field(ge=1, le=1000)]
BudgetId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


EXAMPLE_TERMS: dict[str, Any] = {
    "scope": {"kind": "user", "value": "ada"},
    "unit": "dollars",
    "limit": "250",
    "period": "month",
    "timezone": "Europe/Berlin",
    "rolling": False,
    "thresholds": [50, 80, 100],
}


class BudgetTerms(BaseModel):
    """All of a budget but its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE_TERMS]})

    scope: Subject = Field(description="Whose usage is limited.")
    unit: BudgetUnit = Field(description="What is counted; tokens are input plus output.")
    limit: Annotated[Amount, Field(gt=0, le=MAX_LIMIT, max_digits=27, decimal_places=12)] = Field(
        description="Dollars, tokens or requests of a period. A decimal string is exact; whole for tokens and"
        " requests.",
        examples=["250"],
    )
    period: BudgetPeriod = Field(description="How long usage adds up before it starts anew.")
    timezone: Timezone = Field(
        "UTC", description="IANA time zone in which the period begins; UTC by default, and for a rolling one."
    )
    rolling: bool = Field(
        False,
        description="True: the last hour, 24 hours, 7 days or 30 days, instead of a calendar period. False by default.",
    )
    thresholds: Annotated[tuple[Percent, ...], Field(min_length=1, max_length=10), AfterValidator(_ascending)] = Field(
        (50, 80, 100),
        description="Percents of the limit at which an alert is given, ascending; 50, 80 and 100 by default.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.unit is not BudgetUnit.DOLLARS and self.limit != self.limit.to_integral_value():
            raise PydanticCustomError("limit", "limit must be whole for tokens and requests")
        if self.rolling and self.timezone != "UTC":
            raise PydanticCustomError("rolling", "timezone must be UTC for a rolling period, which begins nowhere")
        return self

    def span(self, now: datetime) -> tuple[datetime, datetime]:
        """The period whose usage is counted now, in UTC."""
        return rolling_span(self.period, now) if self.rolling else span_of(self.period, self.timezone, now)

    def alert_span(self, now: datetime) -> tuple[datetime, datetime]:
        """The span, in UTC, in which a threshold gives one alert: a calendar period, even where the budget rolls."""
        return span_of(self.period, self.timezone, now)

    def is_reached(self, percent: int, spent: Decimal) -> bool:
        """Exact, for there is no division."""
        return spent * 100 >= self.limit * percent

    def level(self, spent: Decimal) -> BudgetLevel:
        if spent >= self.limit:
            return BudgetLevel.EXCEEDED
        return BudgetLevel.WARNING if self.is_reached(self.thresholds[0], spent) else BudgetLevel.OK


class Budget(BudgetTerms):
    """A limit on what a subject may use in a period."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "ada-monthly", **EXAMPLE_TERMS}]})

    id: BudgetId = Field(description="A name of your choice.", examples=["ada-monthly"])


class BudgetStatus(BaseModel):
    """A value of the topic `budget-status`, whose key is the budget's id."""

    model_config = ConfigDict(frozen=True)

    budget_id: str = Field(description="The budget.")
    scope: Subject = Field(description="Whose usage it limits.")
    level: BudgetLevel = Field(description="`warning` from the first threshold on, `exceeded` from the limit on.")
    unit: BudgetUnit = Field(description="What is counted.")
    spent: Amount = Field(description="Used in the period, in the unit of the budget.")
    limit: Amount = Field(description="The limit, in the same unit.")
    resets_at: datetime | None = Field(description="End of the period, UTC; null for a rolling budget.")
    updated_at: datetime = Field(description="When this was worked out, UTC.")
