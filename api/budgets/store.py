"""What the API asks of whoever keeps the budgets. The API knows no Kafka; the command line plugs the two together."""

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from aggregator.budgets.budget import EXAMPLE_TERMS, Budget, BudgetStatus
from aggregator.budgets.subject import Subject, SubjectKind
from api.security.access import Restriction

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


class BudgetsUnavailableError(Exception):
    """Kafka, which holds the budgets, does not answer: try again later."""


class BudgetStore(Protocol):
    """Each method raises BudgetsUnavailableError."""

    async def budgets(self) -> Mapping[str, Budget]:
        """All budgets by id, those included that were put a moment ago."""
        ...

    async def statuses(self) -> Mapping[str, BudgetStatus]:
        """What the aggregators have said last, by budget id; none of a budget that they have not seen yet."""
        ...

    async def put(self, budget: Budget) -> None:
        """Set a budget; returns once it is kept."""
        ...

    async def delete(self, budget_id: str) -> None:
        """Remove a budget; nothing happens where there is none."""
        ...


class BudgetWithStatus(Budget):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE_BUDGET, "status": EXAMPLE_STATUS}]},
    )

    status: BudgetStatus | None = Field(description="Null until an aggregator has looked at the budget.")


class BudgetList(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"budgets": [{**EXAMPLE_BUDGET, "status": EXAMPLE_STATUS}]}]}
    )

    budgets: list[BudgetWithStatus] = Field(description="By id.")


def is_visible(scope: Subject, restriction: Restriction | None) -> bool:
    """A confined caller sees the budgets of their own user and keys."""
    if restriction is None:
        return True
    if scope.kind is SubjectKind.API_KEY:
        return scope.value in restriction.api_key_ids
    return scope.kind is SubjectKind.USER and scope.value == restriction.user_id and not restriction.api_key_ids


async def list_budgets(store: BudgetStore, restriction: Restriction | None) -> BudgetList:
    """Raises BudgetsUnavailableError."""
    budgets, statuses = await store.budgets(), await store.statuses()
    return BudgetList(
        budgets=[
            BudgetWithStatus(**budget.model_dump(), status=statuses.get(name))
            for name, budget in sorted(budgets.items())
            if is_visible(budget.scope, restriction)
        ]
    )
