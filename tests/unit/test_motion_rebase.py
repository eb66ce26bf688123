"""A ledger in a world that stores, sends, repeats, loses, restarts and asks ClickHouse at any moments, against a plain
sum of what is stored: never more than it, and in the end the same to the last digit."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aggregator.motion import ledger
from aggregator.motion.budget import Budget
from aggregator.motion.health import History
from aggregator.motion.increment import Increment, Source
from aggregator.motion.ledger import Base, Ledger, Sums, Window
from aggregator.motion.period import minutes
from tests.unit.test_motion_ledger import NOW, PARTITIONS, Event, brute_force, budgets, events, usages

SETTLED = minutes(NOW) - 600
RUNS = settings(deadline=None, max_examples=100, stateful_step_count=40)
fresh_events = events.filter(lambda event: event.minute >= SETTLED)


def sums_of(window: Window, value: str, records: list[Event]) -> Sums:
    mine = [one for one in records if window.start <= one.minute < window.end and value in ("", one.user)]
    return Sums(len(mine), sum(one.tokens for one in mine), sum((one.cost for one in mine), Decimal(0)))


class World(RuleBasedStateMachine):
    """`question` is what the aggregator has asked: the cut, and the windows; `answer` what ClickHouse has read for it
    and not told yet. `position` is the next increment of the topic that is read."""

    records: st.SearchStrategy[list[Event]] = st.lists(events, min_size=1, max_size=3)

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[tuple[Source, list[Event]]] = []
        self.topic: list[Increment] = []
        self.position = 0
        self.question: tuple[dict[int, int], dict[Window, set[str]]] | None = None
        self.answer: Base | None = None

    @initialize(kept=budgets)
    def begin(self, kept: list[Budget]) -> None:
        self.kept = kept
        self.restart(0)

    @rule(back=st.integers(0, 9))
    def restart(self, back: int) -> None:
        """Another process, which begins where Faust has committed."""
        self.state = Ledger()
        for one in self.kept:
            self.state.open(one, NOW)
        self.question = self.answer = None
        self.read_again(back)

    @rule(back=st.integers(1, 9))
    def read_again(self, back: int) -> None:
        self.position = max(0, self.position - back)

    @rule(partition=st.integers(0, PARTITIONS - 1), data=st.data())
    def store(self, partition: int, data: st.DataObject) -> None:
        records = data.draw(self.records)
        first = sum(source.last - source.first + 1 for source, _ in self.stored if source.partition == partition)
        source = Source(topic="t", topic_id="id", partition=partition, first=first, last=first + len(records) - 1)
        self.stored.append((source, records))
        if self.is_sent(data.draw):
            self.topic.append(Increment(source, usages(records)))

    def is_sent(self, draw: Callable[[Any], Any]) -> bool:
        return bool(draw(st.booleans()))

    @precondition(lambda self: self.state.has_base)
    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        for increment in self.topic[self.position : self.position + count]:
            ledger.apply(self.state, increment)
            self.position += 1

    @precondition(lambda self: self.question is None)
    @rule()
    def ask(self) -> None:
        """What is stored when the cut is taken, or seen."""
        cut = {partition: position.last for partition, position in self.state.seen.items()}
        for source, _ in self.stored:
            cut[source.partition] = max(source.last, cut.get(source.partition, -1))
        self.question = cut, ledger.ask(self.state, NOW)

    @precondition(lambda self: self.question is not None)
    @rule()
    def sums_are_read(self) -> None:
        """Of settled minutes all that is stored by now, whether the cut has it or not."""
        assert self.question is not None
        cut, windows = self.question
        held = [
            event
            for source, records in self.stored
            for event in records
            if event.minute < SETTLED or source.last <= cut.get(source.partition, -1)
        ]
        found = {
            window: {value: sums_of(window, value, held) for value in values} for window, values in windows.items()
        }
        self.answer = Base(cut, SETTLED, found)

    @precondition(lambda self: self.answer is not None)
    @rule()
    def take(self) -> None:
        assert self.answer is not None
        assert self.state.meanwhile is not None
        ledger.rebase(self.state, self.state.meanwhile, self.answer, History())
        self.question = self.answer = None

    @precondition(lambda self: self.question is not None)
    @rule()
    def clickhouse_fails(self) -> None:
        ledger.forget(self.state)
        self.question = self.answer = None

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        """A budget, which may happen while ClickHouse is asked."""
        number = data.draw(st.integers(0, len(self.kept) - 1))
        old = self.kept[number]
        self.kept[number] = data.draw(budgets)[0].model_copy(update={"id": old.id})
        self.state.close(old.id)
        self.state.open(self.kept[number], NOW)

    def plain_sums(self) -> dict[str, Decimal]:
        records = [event for _, records in self.stored for event in records]
        return {one.id: brute_force(one, records) for one in self.kept}

    def based(self) -> dict[str, Decimal]:
        return {name: account.spent for name, account in self.state.accounts.items() if account.has_base}

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        expected = self.plain_sums()
        assert all(spent <= expected[name] for name, spent in self.based().items())

    def reconcile(self) -> None:
        if self.question is None:
            self.ask()
        self.sums_are_read()
        self.take()

    def teardown(self) -> None:
        """One more reconcile from its beginning, and whatever increments come with it, make everything right."""
        if hasattr(self, "state"):
            self.question = None
            self.reconcile()
            for increment in self.topic[self.position :]:
                ledger.apply(self.state, increment)
            assert self.based() == self.plain_sums()


class OrderlyWorld(World):
    """No increment is lost and no request is late: whoever has read all increments has the sum at any moment."""

    records = st.lists(fresh_events, min_size=1, max_size=3)

    def is_sent(self, draw: Callable[[Any], Any]) -> bool:
        return True

    @precondition(lambda self: self.state.has_base)
    @rule()
    def read_all(self) -> None:
        self.read(len(self.topic))
        expected = self.plain_sums()
        for name, spent in self.based().items():
            assert spent == expected[name]


def test_whatever_is_lost_repeated_or_late_no_sum_exceeds_what_is_stored_and_the_next_reconcile_is_exact() -> None:
    run_state_machine_as_test(World, settings=RUNS)


def test_with_all_increments_a_sum_is_exact_at_any_moment_while_clickhouse_is_asked_too() -> None:
    run_state_machine_as_test(OrderlyWorld, settings=RUNS)
