"""`client.budgets` and `client.alerts`; docs/budgets.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import quote

import msgspec

from router_insights.answers.budgets import AlertList, Budget, BudgetList, Scope
from router_insights.call import Call
from router_insights.connection import AsyncConnection, Connection
from router_insights.request_fields import parameters_of

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Unpack


class BudgetTerms(TypedDict):
    """All of a budget but its id. What is left out is the API's default. A float is no exact limit: none is taken."""

    scope: Scope | Mapping[str, str]
    unit: Literal["dollars", "tokens", "requests"]
    limit: Decimal | int | str
    period: Literal["hour", "day", "week", "month"]
    timezone: NotRequired[str]
    rolling: NotRequired[bool]
    thresholds: NotRequired[Sequence[int]]


class AlertFilters(TypedDict, total=False):
    """Which alerts, at most `limit` of them. `start_time` is inclusive, `end_time` exclusive; both need a zone."""

    kind: Literal["budget", "error_rate", "latency", "silence", "unpriced", "missing_usage"] | None
    budget_id: str | None
    start_time: datetime | str | None
    end_time: datetime | str | None
    limit: int | None


_LIST = Call("GET", "/v1/budgets", BudgetList)


def _path(budget_id: str) -> str:
    if budget_id in ("", ".", "..") or "/" in budget_id:
        raise ValueError(f"budget_id: {budget_id!r} is no name of a budget")
    return f"/v1/budgets/{quote(budget_id, safe='')}"


def _put(budget_id: str, terms: Mapping[str, Any]) -> Call[Budget]:
    if isinstance(terms.get("limit"), float):
        raise TypeError("limit: must be a Decimal, an integer or text, since a float is not exact")
    return Call("PUT", _path(budget_id), Budget, body=msgspec.json.encode({**terms, "limit": str(terms["limit"])}))


def _delete(budget_id: str) -> Call[Budget]:
    # After a 503 it may be deleted, and a second try would say that there is none.
    return Call("DELETE", _path(budget_id), Budget, may_repeat=False)


def _alerts(filters: Mapping[str, Any]) -> Call[AlertList]:
    return Call("GET", "/v1/alerts", AlertList, parameters_of(None, filters))


class Budgets:
    """To put and to delete budgets needs a key of scope `admin`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list_budgets(self) -> BudgetList:
        """Every budget, with what is spent of it."""
        return self._connection.send(_LIST)

    def put_budget(self, budget_id: str, **terms: Unpack[BudgetTerms]) -> Budget:
        """Make a budget, or change it. Raises TypeError for a limit that is a float."""
        return self._connection.send(_put(budget_id, terms))

    def delete_budget(self, budget_id: str) -> Budget:
        """Remove a budget; the answer is what it was. Raises NotFoundError."""
        return self._connection.send(_delete(budget_id))


class AsyncBudgets:
    """`Budgets` for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list_budgets(self) -> BudgetList:
        """Every budget, with what is spent of it."""
        return await self._connection.send(_LIST)

    async def put_budget(self, budget_id: str, **terms: Unpack[BudgetTerms]) -> Budget:
        """Make a budget, or change it. Raises TypeError for a limit that is a float."""
        return await self._connection.send(_put(budget_id, terms))

    async def delete_budget(self, budget_id: str) -> Budget:
        """Remove a budget; the answer is what it was. Raises NotFoundError."""
        return await self._connection.send(_delete(budget_id))


class Alerts:
    """Alerts of budgets and of models' behaviour."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list_alerts(self, **filters: Unpack[AlertFilters]) -> AlertList:
        """Alerts, newest first."""
        return self._connection.send(_alerts(filters))


class AsyncAlerts:
    """`Alerts` for asyncio."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list_alerts(self, **filters: Unpack[AlertFilters]) -> AlertList:
        """Alerts, newest first."""
        return await self._connection.send(_alerts(filters))
