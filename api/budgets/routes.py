from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool

from aggregator.budgets.budget import Budget, BudgetTerms
from aggregator.tables.audit_log import Action, record
from api.budgets.alerts import list_alerts
from api.budgets.listing import list_budgets
from api.budgets.parameters import AlertParameters
from api.budgets.schemas import EXAMPLE_BUDGET, AlertList, BudgetList
from api.budgets.store import BudgetStore, BudgetsUnavailableError
from api.errors import ApiError, documented
from api.parameters import NoParameters
from api.security.auth import RequestCaller, allow
from api.security.permissions import Caller, Permission
from api.security.reading import AppReading

router = APIRouter(tags=["budgets"], responses=documented(400, 401, 403, 500, 503))

Name = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="A name of your choice: letters, digits, dot, underscore, hyphen; at most 64.",
        examples=["ada-monthly"],
    ),
]
UNAVAILABLE = "Kafka, which keeps the budgets, does not answer right now; try again later."
ANSWER: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": EXAMPLE_BUDGET}}}}


def _store(request: Request) -> BudgetStore:
    store: BudgetStore | None = request.app.state.budget_store
    if store is None:
        raise ApiError(503, "This service is not connected to Kafka and keeps no budgets.")
    return store


async def _record(request: Request, caller: Caller, action: Action, budget: Budget) -> None:
    details = budget.model_dump(mode="json", exclude={"id"})
    await run_in_threadpool(record, request.app.state.warehouse, f"key {caller.name}", action, budget.id, details)


@router.get("/v1/budgets")
async def get_budgets(request: Request, _: Annotated[NoParameters, Query()], caller: RequestCaller) -> BudgetList:
    """Every budget, with what is spent of it."""
    try:
        return await list_budgets(_store(request), caller.restriction)
    except BudgetsUnavailableError as error:
        raise ApiError(503, UNAVAILABLE) from error


@router.put("/v1/budgets/{budget_id}", dependencies=[allow(Permission.ADMIN)], responses=ANSWER)
async def put_budget(
    request: Request, budget_id: Name, terms: BudgetTerms, _: Annotated[NoParameters, Query()], caller: RequestCaller
) -> Budget:
    """Make a budget, or change it. It applies at once to what was spent in its period already."""
    budget = Budget(id=budget_id, **terms.model_dump())
    store = _store(request)
    await _record(request, caller, Action.PUT_BUDGET, budget)
    try:
        await store.put(budget)
    except BudgetsUnavailableError as error:
        raise ApiError(503, UNAVAILABLE) from error
    return budget


@router.delete(
    "/v1/budgets/{budget_id}", dependencies=[allow(Permission.ADMIN)], responses={**ANSWER, **documented(404)}
)
async def delete_budget(
    request: Request, budget_id: Name, _: Annotated[NoParameters, Query()], caller: RequestCaller
) -> Budget:
    """Remove a budget; the answer is what it was."""
    store = _store(request)
    try:
        found = (await store.budgets()).get(budget_id)
        if found is None:
            raise ApiError(404, "There is no budget of this name.")
        await _record(request, caller, Action.DELETE_BUDGET, found)
        await store.delete(budget_id)
    except BudgetsUnavailableError as error:
        raise ApiError(503, UNAVAILABLE) from error
    return found


@router.get("/v1/alerts", responses=documented(504))
async def get_alerts(parameters: Annotated[AlertParameters, Query()], reading: AppReading) -> AlertList:
    """Alerts of budgets and of models' behaviour, newest first. A confined caller sees none."""
    return await reading.run(list_alerts, parameters)
