"""What a book has to say: alerts and levels at once, mere sums in turns, and nothing twice."""

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


def book_of(count: int) -> BudgetState:
    book = BudgetState("events", 1)
    book.change_budgets({f"b-{number}": budget(number) for number in range(count)}, NOW)
    assert book.own({0}, NOW)
    return book


def reconciled(book: BudgetState, warehouse: Warehouse) -> None:
    found = snapshot.answer(warehouse, book.ask(NOW))
    for partition in book.partitions:
        book.take(partition, found, NOW)


def increment(offset: int, key: int, requests: int) -> Increment:
    usage = Usage("api_key", f"key-{key}", minutes(NOW), requests, 0, 0, 0, Decimal(0), 0, 0)
    return Increment(Source(topic="events", topic_id="id", partition=0, first=offset, last=offset), [usage])


def said(book: BudgetState) -> list[tuple[str, str]]:
    """Budget and what was spent, of the statuses that are in the outbox now."""
    messages = [message.value for message in book.outbox if isinstance(message.value, BudgetStatus)]
    book.outbox.clear()
    return [(status.budget_id, str(status.spent)) for status in messages]


def all_sums(book: BudgetState) -> list[tuple[str, str]]:
    found = []
    while book.has_more_to_tell:
        book.tell_sums(2, NOW)
        found += said(book)
    return found


def test_every_budget_has_its_turn_though_reconciles_come_in_between(warehouse: Warehouse) -> None:
    book, told = book_of(5), set()
    for _ in range(3):
        reconciled(book, warehouse)
        book.tell_sums(2, NOW)
        told |= {name for name, _ in said(book)}
    assert told == {f"b-{number}" for number in range(5)}
    reconciled(book, warehouse)
    assert all_sums(book) == []


def test_a_level_is_told_at_once_and_a_sum_with_the_next_reconcile(warehouse: Warehouse) -> None:
    book = book_of(2)
    reconciled(book, warehouse)
    assert all_sums(book) == [("b-0", "0"), ("b-1", "0")]
    assert book.count(0, increment(0, key=0, requests=1), NOW)
    assert said(book) == []
    assert book.count(0, increment(1, key=1, requests=5), NOW)
    assert said(book) == [("b-1", "5")]
    assert not book.count(0, increment(1, key=1, requests=5), NOW)


def test_a_budget_that_is_gone_is_not_told_but_removed(warehouse: Warehouse) -> None:
    book = book_of(2)
    reconciled(book, warehouse)
    book.change_budgets({"b-1": None}, NOW)
    assert [(message.key, message.value) for message in book.outbox] == [("b-1", None)]
    book.outbox.clear()
    assert all_sums(book) == [("b-0", "0")]


def test_increments_of_another_topic_are_not_counted(warehouse: Warehouse) -> None:
    book = BudgetState("other", 1)
    book.own({0}, NOW)
    reconciled(book, warehouse)
    assert not book.count(0, increment(0, key=0, requests=1), NOW)


def test_a_budget_that_is_changed_in_mid_period_has_what_was_spent_once_clickhouse_has_answered(
    warehouse: Warehouse,
) -> None:
    rows = [{**row, "api_key_id": "key-0"} for row in random_rows(1, 7, start=NOW.replace(minute=0), span=MINUTE)]
    insert_rows(warehouse, rows)
    book = book_of(1)
    reconciled(book, warehouse)
    assert all_sums(book) == [("b-0", "7")]
    changed = budget(0).model_copy(update={"limit": Decimal(14), "unit": BudgetUnit.REQUESTS})
    # The answer is asked for at once, and until it is there nothing is said.
    assert book.change_budgets({"b-0": changed}, NOW)
    assert book.turn(NOW) is False
    assert not book.outbox
    reconciled(book, warehouse)
    [alert] = [message.value for message in book.outbox if isinstance(message.value, Alert)]
    assert (alert.threshold_percent, str(alert.value), str(alert.limit)) == (50, "7", "14")
