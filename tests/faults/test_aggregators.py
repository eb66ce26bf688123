"""Aggregators on Apache Kafka beside each other, killed, and with offsets that Faust has set wrong."""

import asyncio
import json
import random
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetStatus
from aggregator.budgets.topics import ALERTS, BUDGET_STATUS, INCREMENTS, partitions_of
from cli.adapters.budget_store import KafkaBudgets
from tests.faults.budgets import budgets, event, stored, until_windows_equal
from tests.faults.stack import Run, Stack, running_stack
from tests.support.kafka import KafkaMissingError, free_port, read_topic

SECONDS = 120.0
STOP_SECONDS = 60.0
USERS = [f"user-{n}" for n in range(12)]
LIMIT = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        with running_stack(tmp_path_factory.mktemp("aggregators")) as stack:
            yield stack
    except KafkaMissingError as error:
        pytest.skip(str(error))


class Aggregators:
    """Processes of one group, by the port of their metrics; `name` is part of every budget's id."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.name = f"b{uuid.uuid4().hex[:8]}"
        self.group = f"aggregate-{self.name}"
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> int:
        port = free_port()
        # With a session long enough that none loses its partitions because the machine is busy.
        self.processes[port] = self._run.start_insights(
            "aggregate", aggregate_group=self.group, reconcile_seconds=3, metrics_port=port,
            kafka_session_timeout_ms=6000,
        )  # fmt: skip
        return port

    def end(self, port: int, how: signal.Signals) -> None:
        process = self.processes.pop(port)
        process.send_signal(how)
        process.wait()

    def counts(self) -> list[int]:
        """How many budgets each owns."""
        return [int(_metric(port, "insights_budgets")) for port in self.processes]


def _metric(port: int, name: str) -> float:
    try:
        lines = httpx2.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    except httpx2.TransportError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


@asynccontextmanager
async def counting(stack: Stack, kept: list[Budget]) -> AsyncIterator[tuple[Run, KafkaBudgets, Aggregators]]:
    """A worker, budgets, and a group of aggregators to be started."""
    async with Run(stack, random.Random(1)) as run:
        aggregators, store = Aggregators(run), KafkaBudgets(stack.kafka.address)
        named = [budget.model_copy(update={"id": f"{aggregators.name}-{budget.id}"}) for budget in kept]
        kept[:] = named
        try:
            for budget in kept:
                await store.put(budget)
            run.start_worker()
            yield run, store, aggregators
        finally:
            for port in list(aggregators.processes):
                aggregators.end(port, signal.SIGKILL)
            for budget in kept:
                await store.delete(budget.id)
            await store.close()


def budget_of(user: str) -> Budget:
    return Budget.model_validate(
        {"id": user, "scope": {"kind": "user", "value": user}, "unit": "requests", "limit": LIMIT, "period": "month",
         "thresholds": [50, 100]}
    )  # fmt: skip


async def produce(run: Run, first: int, of_each: int) -> None:
    """So many requests of each of USERS, and of those that `budgets` are about."""
    events = []
    for number in range(first, first + of_each):
        for user in USERS:
            key = f"{user}-{number}"
            events.append((key, json.dumps({**json.loads(event(run.rng, key)), "user_id": user}).encode()))
            events.append((f"{key}-more", event(run.rng, f"{key}-more")))
    await run.produce(events)


async def alerts_of(address: str, name: str) -> list[Alert]:
    found = [Alert.model_validate_json(record.value) for record in await read_topic(address, ALERTS)]
    return [alert for alert in found if alert.budget_id.startswith(name)]


async def statuses_of(address: str, name: str) -> list[BudgetStatus]:
    """All that were ever published; the topic is not compacted within minutes."""
    records = [record for record in await read_topic(address, BUDGET_STATUS) if record.value is not None]
    found = [BudgetStatus.model_validate_json(record.value) for record in records]
    return [status for status in found if status.budget_id.startswith(name)]


def thresholds(alerts: list[Alert]) -> set[tuple[str, int]]:
    return {(alert.scope.value, alert.threshold_percent) for alert in alerts}


async def test_two_aggregators_share_the_budgets_and_one_takes_over_from_the_other(stack: Stack) -> None:
    kept = [*budgets("sum"), *map(budget_of, USERS)]
    address = stack.kafka.address
    async with counting(stack, kept) as (run, store, aggregators):
        first = aggregators.start()
        await run.until(lambda: aggregators.counts() == [len(kept)], SECONDS)
        aggregators.start()
        await run.until(lambda: min(aggregators.counts()) > 0 and sum(aggregators.counts()) == len(kept), SECONDS)
        published = len(await statuses_of(address, aggregators.name))

        await produce(run, 0, LIMIT // 2)
        await until_windows_equal(run, store, kept)
        alerts = await alerts_of(address, aggregators.name)
        assert thresholds(alerts) == {(user, 50) for user in USERS}
        assert len(alerts) == len(USERS)
        new = (await statuses_of(address, aggregators.name))[published:]
        assert max(Counter((one.budget_id, one.level, one.spent) for one in new).values()) == 1

        aggregators.end(first, signal.SIGKILL)
        await produce(run, LIMIT // 2, LIMIT // 2)
        await run.until(lambda: aggregators.counts() == [len(kept)], SECONDS)
        await until_windows_equal(run, store, kept)
        expected = {(user, percent) for user in USERS for percent in (50, 100)}
        await until_alerted(run, address, aggregators.name, expected)


async def until_alerted(run: Run, address: str, name: str, expected: set[tuple[str, int]]) -> None:
    """On the topic, where a kill may repeat one under its id, and in the table, each once."""

    def rows() -> list[tuple[str, int]]:
        found = run.warehouse.query(
            "SELECT scope_value, threshold_percent FROM alerts WHERE startsWith(budget_id, {name:String})",
            {"name": name},
        )
        return sorted((row["scope_value"], row["threshold_percent"]) for row in found)

    await run.until(lambda: len(rows()) >= len(expected), SECONDS)
    assert rows() == sorted(expected)
    alerts = await alerts_of(address, name)
    assert thresholds(alerts) == expected
    assert len({alert.id for alert in alerts}) == len(expected)


async def test_aggregators_that_wait_for_clickhouse_share_partitions_and_end_on_sigterm(stack: Stack) -> None:
    """Increments are waiting to be counted all the while."""
    kept = [*budgets("sum"), *map(budget_of, USERS)]
    async with counting(stack, kept) as (run, store, aggregators):
        await produce(run, 0, 2)
        await run.settle()
        stack.clickhouse.pretend({"argMax(source_offset": "throwIf(1), argMax(source_offset"})
        try:
            first = aggregators.start()
            await run.until(lambda: aggregators.counts() == [len(kept)], SECONDS)
            await run.until(lambda: _metric(first, "insights_reconcile_failures_total") > 1, SECONDS)
            second = aggregators.start()
            await run.until(lambda: min(aggregators.counts()) > 0 and sum(aggregators.counts()) == len(kept), SECONDS)
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.to_thread(aggregators.end, second, signal.SIGTERM)
            await run.until(lambda: aggregators.counts() == [len(kept)], SECONDS)
        finally:
            stack.clickhouse.pretend({})
        await until_windows_equal(run, store, kept)


async def test_offsets_that_faust_has_set_wrong_neither_lose_nor_double_anything(stack: Stack) -> None:
    """It may commit past what it has not counted, and go back to what it has."""
    kept = [*budgets("sum"), *map(budget_of, USERS)]
    address = stack.kafka.address
    async with counting(stack, kept) as (run, store, aggregators):
        port = aggregators.start()
        await produce(run, 0, LIMIT // 2)
        await until_windows_equal(run, store, kept)
        for number, to_end in enumerate((True, False), start=1):
            aggregators.end(port, signal.SIGTERM)
            await produce(run, number * LIMIT, LIMIT // 2)
            await run.settle()
            await set_offsets(address, aggregators.group, to_end)
            port = aggregators.start()
            await no_status_exceeds_what_is_stored(run, store, kept)
            await until_windows_equal(run, store, kept)
        expected = {(user, percent) for user in USERS for percent in (50, 100)}
        await until_alerted(run, address, aggregators.name, expected)


async def set_offsets(address: str, group: str, to_end: bool) -> None:
    """Set the offsets of the group in the increments; it has no members, or is about to have none."""
    async with AIOKafkaConsumer(bootstrap_servers=address, group_id=group, enable_auto_commit=False) as consumer:
        partitions = [TopicPartition(INCREMENTS, n) for n in range(await partitions_of(address, INCREMENTS))]
        consumer.assign(partitions)
        offsets = await (consumer.end_offsets if to_end else consumer.beginning_offsets)(partitions)
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await consumer.commit(offsets)
                    return
                except KafkaError:
                    await asyncio.sleep(0.5)


async def no_status_exceeds_what_is_stored(run: Run, store: KafkaBudgets, kept: list[Budget]) -> None:
    """For some seconds, in which the replayed increments are read."""
    for _ in range(8):
        statuses = await store.statuses()
        for budget in kept:
            status = statuses.get(budget.id)
            if status is not None:
                assert status.spent <= stored(run, budget, status.updated_at)[0]
        await asyncio.sleep(0.3)
