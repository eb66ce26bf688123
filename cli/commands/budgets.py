"""Budgets in Kafka: for the API, and for `insights budgets`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from aggregator.budgets.budget import Budget, BudgetStatus, Level, plain
from aggregator.budgets.compacted_topic import CompactedTopic, TopicUnavailableError
from aggregator.budgets.topics import BUDGET_STATUS, BUDGETS, create_motion_topics
from aggregator.errors import InsightsError
from aggregator.kafka import KafkaSettings
from api.budgets.store import BudgetsUnavailableError
from ingest.topics.create import KafkaUnavailableError

log = structlog.get_logger(__name__)

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.EXCEEDED: "bold red"}


class BudgetError(InsightsError):
    """The budget cannot be as it was given, or is not there; the message says why."""


class KafkaBudgets:
    """What the API asks of a budget store (`api.budgets.store.BudgetStore`). It connects with the first question."""

    def __init__(self, bootstrap_servers: str, **client_options: Any) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._client_options = client_options
        self._connecting = asyncio.Lock()
        self._topics: dict[str, CompactedTopic] = {}
        # Closes every topic, whichever of them fails to.
        self._opened = AsyncExitStack()

    async def _topic(self, name: str) -> CompactedTopic:
        async with self._connecting:
            if not self._topics:
                await create_motion_topics(self._bootstrap_servers, **self._client_options)
            if name not in self._topics:
                topic = CompactedTopic(self._bootstrap_servers, name, **self._client_options)
                self._topics[name] = await self._opened.enter_async_context(topic)
            return self._topics[name]

    async def budgets(self) -> Mapping[str, Budget]:
        with _translated():
            found = await (await self._topic(BUDGETS)).read()
        return {name: budget for name, value in found.items() if (budget := _parsed(name, value)) is not None}

    async def statuses(self) -> Mapping[str, BudgetStatus]:
        with _translated():
            found = await (await self._topic(BUDGET_STATUS)).read()
        return {name: BudgetStatus.model_validate_json(value) for name, value in found.items()}

    async def put(self, budget: Budget) -> None:
        with _translated():
            await (await self._topic(BUDGETS)).write(budget.id, budget.model_dump_json().encode())

    async def delete(self, budget_id: str) -> None:
        with _translated():
            await (await self._topic(BUDGETS)).write(budget_id, None)

    async def close(self) -> None:
        await self._opened.aclose()


class _translated:
    """Kafka's errors as the API knows them."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (TopicUnavailableError, OSError)) or type(error).__module__.startswith("aiokafka"):
            raise BudgetsUnavailableError(str(error) or type(error).__name__) from error


def _parsed(name: str, value: bytes) -> Budget | None:
    try:
        return Budget.model_validate_json(value)
    except ValidationError as error:
        log.error("budget_invalid", budget=name, reason=str(error)[:300])
        return None


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
