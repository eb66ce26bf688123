"""`insights budgets`: list, set and delete them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from aggregator.budgets.budget import Budget, BudgetLevel, BudgetStatus, plain
from aggregator.errors import InsightsError
from aggregator.settings import KafkaSettings
from api.budgets.store import BudgetsUnavailableError
from cli.adapters.budget_store import KafkaBudgets
from cli.options import Servers
from router_insights.errors import KafkaUnavailableError

app = typer.Typer(add_completion=False, no_args_is_help=True)

BudgetName = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, dot, underscore, hyphen.")]
STYLES = {BudgetLevel.OK: "green", BudgetLevel.WARNING: "yellow", BudgetLevel.EXCEEDED: "bold red"}


class BudgetError(InsightsError):
    """The budget is not valid, or does not exist; the message says why."""


@asynccontextmanager
async def _store(bootstrap_servers: str) -> AsyncIterator[KafkaBudgets]:
    store = KafkaBudgets(bootstrap_servers, **KafkaSettings().client_options())
    try:
        yield store
    except BudgetsUnavailableError as error:
        raise KafkaUnavailableError(f"Kafka at {bootstrap_servers}: {error}") from error
    finally:
        await store.close()


@app.command("list")
def list_budgets(bootstrap_servers: Servers) -> None:
    """Every budget, with what is spent of it."""

    async def read() -> tuple[Mapping[str, Budget], Mapping[str, BudgetStatus]]:
        async with _store(bootstrap_servers) as store:
            return await store.budgets(), await store.statuses()

    budgets, statuses = asyncio.run(read())
    table = Table("budget", "scope", "period", box=box.SIMPLE_HEAD)
    for heading in ("spent", "limit", "unit"):
        table.add_column(heading, justify="right")
    table.add_column("state")
    for name, budget in sorted(budgets.items()):
        status = statuses.get(name)
        level = f"[{STYLES[status.level]}]{status.level}[/]" if status else "not counted yet"
        period = "rolling " * budget.rolling + budget.period
        zone = "" if budget.timezone == "UTC" else f" in {budget.timezone}"
        table.add_row(
            name, str(budget.scope), period + zone, plain(status.spent) if status else "", plain(budget.limit),
            budget.unit, level,
        )  # fmt: skip
    Console().print(table)


def _budget(terms: Mapping[str, object]) -> Budget:
    """Raises BudgetError for terms that are not valid."""
    try:
        return Budget.model_validate(terms)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'budget'}: {item['msg']}" for item in found)
        raise BudgetError(problems) from error


@app.command("set")
def set_budget(
    name: BudgetName,
    limit: Annotated[str, typer.Option(help="Such as 250 or 0.50.")],
    bootstrap_servers: Servers,
    scope: Annotated[
        str, typer.Option(metavar="total|model:M|user:U|api_key:K|tag:T", help="Whose usage it limits.")
    ] = "total",
    unit: Annotated[str, typer.Option(metavar="dollars|tokens|requests")] = "dollars",
    period: Annotated[str, typer.Option(metavar="hour|day|week|month")] = "month",
    timezone: Annotated[str, typer.Option(help="IANA time zone in which the period begins.")] = "UTC",
    rolling: Annotated[bool, typer.Option("--rolling", help="The last hour, 24 hours, 7 or 30 days instead.")] = False,
    threshold: Annotated[
        list[int] | None, typer.Option(help="Percent of the limit at which to alert; may be repeated (50, 80, 100).")
    ] = None,
) -> None:
    """Make a budget, or change it; it applies to what was spent already."""
    kind, _, value = scope.partition(":")
    terms: dict[str, object] = {"id": name, "scope": {"kind": kind, "value": value}, "unit": unit, "limit": limit,
                                "period": period, "timezone": timezone, "rolling": rolling}  # fmt: skip
    budget = _budget(terms | ({"thresholds": sorted(threshold)} if threshold else {}))

    async def put() -> None:
        async with _store(bootstrap_servers) as store:
            await store.put(budget)

    asyncio.run(put())
    print(f"budget {budget.id} is set")


@app.command("delete")
def delete_budget(name: BudgetName, bootstrap_servers: Servers) -> None:
    """Remove a budget."""

    async def delete() -> None:
        async with _store(bootstrap_servers) as store:
            if name not in await store.budgets():
                raise BudgetError(f"there is no budget {name}")
            await store.delete(name)

    asyncio.run(delete())
    print(f"budget {name} is deleted")
