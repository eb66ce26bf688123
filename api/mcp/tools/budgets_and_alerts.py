"""The tool `budgets_and_alerts`: what is spent of each budget, and which alerts were given."""

from typing import Annotated, Any

from pydantic import Field, StrictInt, StrictStr

from aggregator.budgets.alert import AlertKind
from api.analytics.request import Body
from api.budgets.alerts import list_alerts
from api.budgets.listing import list_budgets
from api.budgets.parameters import AlertParameters
from api.budgets.routes import UNAVAILABLE
from api.budgets.store import BudgetsUnavailableError
from api.errors import ApiError
from api.mcp.console_links import ConsolePage, page_address
from api.mcp.context import ToolAnswer, ToolContext

MAX_BUDGETS = 50


class BudgetArguments(Body):
    budget_id: StrictStr | None = Field(None, description="Only this budget and its alerts.")
    alert_kind: AlertKind | None = Field(None, description="Only alerts of this kind.")
    alerts: Annotated[StrictInt, Field(ge=1, le=50)] = Field(10, description="Alerts at most, newest first.")


def answer_budgets(context: ToolContext, asked: BudgetArguments) -> ToolAnswer:
    """A caller who sees only some rows gets their own budgets, and no alerts."""
    budgets, notes = _budgets(context, asked.budget_id)
    alerts = list_alerts(
        context.reader, AlertParameters(budget_id=asked.budget_id, kind=asked.alert_kind, limit=asked.alerts)
    )
    content = {
        "budgets": budgets[:MAX_BUDGETS],
        "more_budgets": len(budgets) > MAX_BUDGETS,
        "alerts": [alert.model_dump(mode="json", exclude={"id"}) for alert in alerts.alerts],
        "more_alerts": alerts.truncated,
    }
    exactness = "exact as of each budget's `status.updated_at`"
    return ToolAnswer(content, page_address(ConsolePage.BUDGETS, budget=asked.budget_id), exactness, notes=notes)


def _budgets(context: ToolContext, budget_id: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Visible budgets, those closest to their limit first. Raises ApiError 503."""
    store = context.budget_store
    if store is None:
        return [], ["This service is not connected to Kafka and keeps no budgets."]
    try:
        found = context.wait_for(list_budgets(store, context.reader.caller.restriction))
    except BudgetsUnavailableError as error:
        raise ApiError(503, UNAVAILABLE) from error
    budgets = [each for each in found.budgets if budget_id in (None, each.id)]
    budgets.sort(key=lambda each: -(each.status.spent / each.limit) if each.status else 1)
    return [each.model_dump(mode="json") for each in budgets], []
