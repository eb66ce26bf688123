"""An alert, and the id by which it is given once."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b

from pydantic import BaseModel, ConfigDict, Field

from aggregator.budgets.budget import Amount, Budget, plain
from aggregator.budgets.subject import Subject


class AlertKind(StrEnum):
    BUDGET = "budget"
    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    SILENCE = "silence"
    UNPRICED = "unpriced"
    MISSING_USAGE = "missing_usage"


class Alert(BaseModel):
    """A value of the topic `alerts`, and a row of the table of that name."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="The same for the same fact: who gets an alert twice may drop the second.")
    kind: AlertKind = Field(description="What the alert is about.")
    created_at: datetime = Field(description="When it was raised, UTC.")
    scope: Subject = Field(description="Whom it is about.")
    budget_id: str = Field("", description='The budget that was used up to a threshold; "" for any other alert.')
    threshold_percent: int = Field(
        0, description="Percent of the budget's limit that was reached; 0 for any other alert."
    )
    value: Amount = Field(
        description="What was spent, in the unit of the budget; else the measured rate (0 to 1) or milliseconds."
    )
    limit: Amount = Field(description="The budget's limit, or what the value was compared with.")
    period_start: datetime = Field(description="Start of the period it is about, UTC.")
    period_end: datetime = Field(description="End of the period it is about, UTC.")
    message: str = Field(description="A sentence for people.")


def alert_id(*facts: object) -> str:
    return blake2b("\x1f".join(str(fact) for fact in facts).encode(), digest_size=16).hexdigest()


def budget_alert(budget: Budget, percent: int, spent: Decimal, now: datetime) -> Alert:
    """The alert for a threshold that was reached; after a change of the limit it is another alert."""
    start, end = budget.alert_span(now)
    named = "rolling " * budget.rolling + budget.period
    return Alert(
        id=alert_id("budget", budget.id, budget.scope, budget.unit, plain(budget.limit), percent, named, start),
        kind=AlertKind.BUDGET,
        created_at=now,
        scope=budget.scope,
        budget_id=budget.id,
        threshold_percent=percent,
        value=spent,
        limit=budget.limit,
        period_start=start,
        period_end=end,
        message=(
            f"{budget.scope} has used {plain(spent)} of {plain(budget.limit)} {budget.unit} in its {named}:"
            f" the {percent} % of budget {budget.id} are reached"
        ),
    )
