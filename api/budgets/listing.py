"""The budgets that a caller may see."""

from aggregator.budgets.subject import Subject, SubjectKind
from api.budgets.schemas import BudgetList, BudgetWithStatus
from api.budgets.store import BudgetStore
from api.security.permissions import Restriction


def is_visible(scope: Subject, restriction: Restriction | None) -> bool:
    """A confined caller sees the budgets of their own user and keys."""
    if restriction is None:
        return True
    if scope.kind is SubjectKind.API_KEY:
        return scope.value in restriction.api_key_ids
    return scope.kind is SubjectKind.USER and scope.value == restriction.user_id and not restriction.api_key_ids


async def list_budgets(store: BudgetStore, restriction: Restriction | None) -> BudgetList:
    """Visible budgets by id, each with its last status. Raises BudgetsUnavailableError."""
    budgets, statuses = await store.budgets(), await store.statuses()
    return BudgetList(
        budgets=[
            BudgetWithStatus(**budget.model_dump(), status=statuses.get(name))
            for name, budget in sorted(budgets.items())
            if is_visible(budget.scope, restriction)
        ]
    )
