"""`insights budgets`: list, set and delete them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from aggregator.budgets.budget import Budget, BudgetStatus, Level, plain
from aggregator.errors import InsightsError
from aggregator.kafka import KafkaSettings
from api.budgets.store import BudgetsUnavailableError
from cli.adapters.budget_store import KafkaBudgets
from ingest.topics.create import KafkaUnavailableError

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.EXCEEDED: "bold red"}


class BudgetError(InsightsError):
    """The budget cannot be as it was given, or is not there; the message says why."""


@asynccontextmanager
async def _store(bootstrap_servers: str) -> AsyncIterator[KafkaBudgets]:
    store = KafkaBudgets(bootstrap_servers, **KafkaSettings().client_options())
    try:
        yield store
    except BudgetsUnavailableError as error:
        raise KafkaUnavailableError(f"Kafka at {bootstrap_servers}: {error}") from error
    finally:
        await store.close()


def run_list(bootstrap_servers: str) -> None:
    """Print every budget with what is spent of it."""

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


def run_set(bootstrap_servers: str, terms: Mapping[str, object]) -> None:
    """Make or change a budget. Raises BudgetError for terms that are not right."""
    try:
        budget = Budget.model_validate(terms)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'budget'}: {item['msg']}" for item in found)
        raise BudgetError(problems) from error

    async def put() -> None:
        async with _store(bootstrap_servers) as store:
            await store.put(budget)

    asyncio.run(put())
    print(f"budget {budget.id} is set")


def run_delete(bootstrap_servers: str, name: str) -> None:
    """Remove a budget. Raises BudgetError where there is none of this name."""

    async def delete() -> None:
        async with _store(bootstrap_servers) as store:
            if name not in await store.budgets():
                raise BudgetError(f"there is no budget {name}")
            await store.delete(name)

    asyncio.run(delete())
    print(f"budget {name} is deleted")
