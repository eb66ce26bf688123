"""Answers about budgets and alerts. Amounts are Decimal, times are aware and in UTC."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from router_insights.table import Table


class Scope(msgspec.Struct, frozen=True):
    """Whom a budget is about: `total`, or one `model`, `user`, `api_key` or `tag` by its `value`."""

    kind: str
    value: str = ""


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is spent of a budget. `level` is `ok`, `warning` or `exceeded`; a rolling budget has no `resets_at`."""

    budget_id: str
    scope: Scope
    level: str
    unit: str
    spent: Decimal
    limit: Decimal
    resets_at: datetime | None
    updated_at: datetime


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A limit on dollars, tokens or requests of a scope in a period. `status` is None until it was looked at."""

    id: str
    scope: Scope
    unit: str
    limit: Decimal
    period: str
    timezone: str
    rolling: bool
    thresholds: list[int]
    status: BudgetStatus | None = None


class BudgetList(Table, frozen=True, kw_only=True):
    """Every budget that the key may see, by id."""

    budgets: list[Budget]

    @property
    def rows(self) -> Sequence[Budget]:
        return self.budgets

    @property
    def row_type(self) -> type[Budget]:
        return Budget


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something to look at. `kind` is `budget`, `error_rate`, `latency`, `silence`,
    `unpriced` or `missing_usage`.

    `value` is what was spent, a rate from 0 to 1, or milliseconds; `limit` what it was compared with.
    """

    id: str
    kind: str
    created_at: datetime
    scope: Scope
    budget_id: str
    threshold_percent: int
    value: Decimal
    limit: Decimal
    period_start: datetime
    period_end: datetime
    message: str


class AlertList(Table, frozen=True, kw_only=True):
    """Alerts, newest first. `truncated`: there are more than `limit`."""

    alerts: list[Alert]
    truncated: bool

    @property
    def rows(self) -> Sequence[Alert]:
        return self.alerts

    @property
    def row_type(self) -> type[Alert]:
        return Alert
