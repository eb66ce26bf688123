"""What the endpoints of budgets and alerts answer with."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import EXAMPLE_TERMS, Budget, BudgetStatus

EXAMPLE_BUDGET: dict[str, Any] = {"id": "ada-monthly", **EXAMPLE_TERMS}
EXAMPLE_STATUS: dict[str, Any] = {
    "budget_id": "ada-monthly",
    "scope": {"kind": "user", "value": "ada"},
    "level": "warning",
    "unit": "dollars",
    "spent": "201.5",
    "limit": "250",
    "resets_at": "2026-11-30T23:00:00Z",
    "updated_at": "2026-11-24T12:00:00Z",
}
EXAMPLE_ALERT: dict[str, Any] = {
    "id": "5e0c2a7be1f04d2f9a6a2f3c8d1b7e90",
    "kind": "budget",
    "created_at": "2026-11-24T12:00:00Z",
    "scope": {"kind": "user", "value": "ada"},
    "budget_id": "ada-monthly",
    "threshold_percent": 80,
    "value": "201.5",
    "limit": "250",
    "period_start": "2026-10-31T23:00:00Z",
    "period_end": "2026-11-30T23:00:00Z",
    "message": "user ada has used 201.5 of 250 dollars in its month: the 80 % of budget ada-monthly are reached",
}


class BudgetWithStatus(Budget):
    """A budget, and what is spent of it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE_BUDGET, "status": EXAMPLE_STATUS}]},
    )

    status: BudgetStatus | None = Field(
        description="What is spent of it; null until an aggregator has looked at the budget."
    )


class BudgetList(BaseModel):
    """The budgets that the caller may see."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"budgets": [{**EXAMPLE_BUDGET, "status": EXAMPLE_STATUS}]}]}
    )

    budgets: list[BudgetWithStatus] = Field(description="Ordered by id.")


class AlertList(BaseModel):
    """Alerts that were raised."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"alerts": [EXAMPLE_ALERT], "truncated": False}]})

    alerts: list[Alert] = Field(description="Newest first.")
    truncated: bool = Field(description="True: there are more than `limit`.")
