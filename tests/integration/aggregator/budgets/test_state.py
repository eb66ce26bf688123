"""What the state publishes: alerts and levels at once, sums in turns, and nothing twice."""

from datetime import UTC, datetime
from decimal import Decimal

from aggregator.budgets import snapshot
from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetStatus, BudgetUnit
from aggregator.budgets.increment import Increment, Source, Usage
from aggregator.budgets.period import MINUTE, minutes
from aggregator.budgets.state import BudgetState
from aggregator.clickhouse.client import Warehouse
from tests.support.rows import insert_rows, random_rows

NOW = datetime.now(UTC)


def budget(number: int) -> Budget:
    scope = {"kind": "api_key", "value": f"key-{number}"}
    return Budget.model_validate(
        {"id": f"b-{number}", "scope": scope, "unit": "requests", "limit": "10", "period": "month"}
    )


def state_of(count: int) -> BudgetState:
    state = BudgetState("events", 1)
    state.change_budgets({f"b-{number}": budget(number) for number in range(count)}, NOW)
    assert state.assign({0}, NOW)
    return state


def reconciled(state: BudgetState, warehouse: Warehouse) -> None:
    found = snapshot.take_snapshot(warehouse, state.begin_snapshot(NOW))
    for partition in state.partitions:
        state.apply_snapshot(partition, found, NOW)


def increment(offset: int, key: int, requests: int) -> Increment:
    usage = Usage("api_key", f"key-{key}", minutes(NOW), requests, 0, 0, 0, 0, 0, Decimal(0), 0, 0)
    return Increment(Source(topic="events", topic_id="id", partition=0, first=offset, last=offset), [usage])


def published(state: BudgetState) -> list[tuple[str, str]]:
    """Budget and what was spent, of the statuses that are in the outbox now."""
    messages = [message.value for message in state.outbox if isinstance(message.value, BudgetStatus)]
    state.outbox.clear()
    return [(status.budget_id, str(status.spent)) for status in messages]


def all_sums(state: BudgetState) -> list[tuple[str, str]]:
    found = []
    while state.has_unpublished_sums:
        state.publish_sums(2, NOW)
        found += published(state)
    return found


def test_every_sum_is_published_though_snapshots_come_in_between(warehouse: Warehouse) -> None:
    state, names = state_of(5), set()
    for _ in range(3):
        reconciled(state, warehouse)
        state.publish_sums(2, NOW)
        names |= {name for name, _ in published(state)}
    assert names == {f"b-{number}" for number in range(5)}
    reconciled(state, warehouse)
    assert all_sums(state) == []


def test_a_level_is_published_at_once_and_a_sum_with_the_next_snapshot(warehouse: Warehouse) -> None:
    state = state_of(2)
    reconciled(state, warehouse)
    assert all_sums(state) == [("b-0", "0"), ("b-1", "0")]
    assert state.count(0, increment(0, key=0, requests=1), NOW)
    assert published(state) == []
    assert state.count(0, increment(1, key=1, requests=5), NOW)
    assert published(state) == [("b-1", "5")]
    assert not state.count(0, increment(1, key=1, requests=5), NOW)


def test_a_status_of_a_removed_budget_is_not_published_but_removed(warehouse: Warehouse) -> None:
    state = state_of(2)
    reconciled(state, warehouse)
    state.change_budgets({"b-1": None}, NOW)
    assert [(message.key, message.value) for message in state.outbox] == [("b-1", None)]
    state.outbox.clear()
    assert all_sums(state) == [("b-0", "0")]


def test_increments_of_another_topic_are_not_counted(warehouse: Warehouse) -> None:
    state = BudgetState("other", 1)
    state.assign({0}, NOW)
    reconciled(state, warehouse)
    assert not state.count(0, increment(0, key=0, requests=1), NOW)


def test_a_budget_that_is_changed_in_mid_period_has_what_was_spent_with_the_next_snapshot(
    warehouse: Warehouse,
) -> None:
    rows = [{**row, "api_key_id": "key-0"} for row in random_rows(1, 7, start=NOW.replace(minute=0), span=MINUTE)]
    insert_rows(warehouse, rows)
    state = state_of(1)
    reconciled(state, warehouse)
    assert all_sums(state) == [("b-0", "7")]
    changed = budget(0).model_copy(update={"limit": Decimal(14), "unit": BudgetUnit.REQUESTS})
    # A snapshot is needed at once, and until it is there nothing is published.
    assert state.change_budgets({"b-0": changed}, NOW)
    assert state.roll_over(NOW) is False
    assert not state.outbox
    reconciled(state, warehouse)
    [alert] = [message.value for message in state.outbox if isinstance(message.value, Alert)]
    assert (alert.threshold_percent, str(alert.value), str(alert.limit)) == (50, "7", "14")
