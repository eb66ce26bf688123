"""What the API asks of whoever keeps the budgets. The API knows no Kafka; the command line plugs the two together."""

from collections.abc import Mapping
from typing import Protocol

from aggregator.budgets.budget import Budget, BudgetStatus


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
