"""The port to the store of budgets. The API does not know Kafka; `cli` passes an adapter to `create_app`."""

from collections.abc import Mapping
from typing import Protocol

from aggregator.budgets.budget import Budget, BudgetStatus


class BudgetsUnavailableError(Exception):
    """Kafka, which holds the budgets, does not answer. The caller may retry later."""


class BudgetStore(Protocol):
    """Each method raises BudgetsUnavailableError."""

    async def budgets(self) -> Mapping[str, Budget]:
        """All budgets by id, including those that were just put."""
        ...

    async def statuses(self) -> Mapping[str, BudgetStatus]:
        """The last statuses of the aggregators by budget id; none for a budget that no aggregator has seen yet."""
        ...

    async def put(self, budget: Budget) -> None:
        """Set a budget; returns once it is stored."""
        ...

    async def delete(self, budget_id: str) -> None:
        """Remove a budget, if there is one of this id."""
        ...
