"""The query parameters of alerts."""

from pydantic import Field

from aggregator.budgets.alert import AlertKind
from api.parameters import TimeRange


class AlertParameters(TimeRange):
    kind: AlertKind | None = Field(None, description="Only alerts of this kind.")
    budget_id: str | None = Field(None, description="Only alerts of this budget.", examples=["ada-monthly"])
    limit: int = Field(100, ge=1, le=1000, description="At most this many, the newest.")
