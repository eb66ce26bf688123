"""The query parameters of alerts."""

from pydantic import Field

from aggregator.budgets.alert import AlertKind
from api.parameters import TimeRange


class AlertParameters(TimeRange):
    kind: AlertKind | None = Field(None, description="Only alerts of this kind; without it, of all.")
    budget_id: str | None = Field(
        None, description="Only alerts of this budget; without it, all.", examples=["ada-monthly"]
    )
    limit: int = Field(100, ge=1, le=1000, description="Alerts at most, the newest; 100 without it.")
