"""The budgets that a caller may see."""

from aggregator.budgets.subject import Subject, SubjectKind
from api.budgets.schemas import BudgetList, BudgetWithStatus
from api.budgets.store import BudgetStore
from api.security.permissions import Restriction


def is_visible(scope: Subject, restriction: Restriction | None) -> bool:
    """A confined caller sees budgets that count nothing but rows they may see: of their user, or of one of their keys.

    Confined to a user *and* keys they see neither: others may use the same keys, and the user others still.
    """
    if restriction is None:
        return True
    if scope.kind is SubjectKind.API_KEY:
        return scope.value in restriction.api_key_ids and restriction.user_id is None
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
