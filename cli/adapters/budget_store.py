"""Budgets in Kafka's compacted topics, for the API and for `insights budgets`."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError
from pydantic import ValidationError

from aggregator.budgets.budget import Budget, BudgetStatus
from aggregator.budgets.compacted_topic import CompactedTopic, TopicUnavailableError
from aggregator.budgets.topics import BUDGET_STATUS, BUDGETS, create_budget_topics
from aggregator.topic_creation import TopicError
from api.budgets.store import BudgetsUnavailableError

log = structlog.get_logger(__name__)


@contextmanager
def _kafka_errors_as_unavailable() -> Iterator[None]:
    """Raises BudgetsUnavailableError for the errors of Kafka and of the connection to it."""
    try:
        yield
    except (TopicUnavailableError, TopicError, KafkaError, ConsumerStoppedError, OSError) as error:
        raise BudgetsUnavailableError(str(error) or type(error).__name__) from error


def _parsed(name: str, value: bytes) -> Budget | None:
    """None for a value that is no budget, which is logged."""
    try:
        return Budget.model_validate_json(value)
    except ValidationError as error:
        log.error("budget_invalid", budget=name, reason=str(error)[:300])
        return None


class KafkaBudgets:
    """What the API asks of a budget store (`api.budgets.store.BudgetStore`). It connects at the first call."""

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
                await create_budget_topics(self._bootstrap_servers, **self._client_options)
            if name not in self._topics:
                topic = CompactedTopic(self._bootstrap_servers, name, **self._client_options)
                self._topics[name] = await self._opened.enter_async_context(topic)
            return self._topics[name]

    async def budgets(self) -> Mapping[str, Budget]:
        with _kafka_errors_as_unavailable():
            found = await (await self._topic(BUDGETS)).read()
        return {name: budget for name, value in found.items() if (budget := _parsed(name, value)) is not None}

    async def statuses(self) -> Mapping[str, BudgetStatus]:
        with _kafka_errors_as_unavailable():
            found = await (await self._topic(BUDGET_STATUS)).read()
        return {name: BudgetStatus.model_validate_json(value) for name, value in found.items()}

    async def put(self, budget: Budget) -> None:
        with _kafka_errors_as_unavailable():
            await (await self._topic(BUDGETS)).write(budget.id, budget.model_dump_json().encode())

    async def delete(self, budget_id: str) -> None:
        with _kafka_errors_as_unavailable():
            await (await self._topic(BUDGETS)).write(budget_id, None)

    async def close(self) -> None:
        await self._opened.aclose()
