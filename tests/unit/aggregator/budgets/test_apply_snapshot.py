"""A ledger in a world that stores, sends, repeats, loses, restarts and takes snapshots at any moment, against a plain
sum of what is stored: never more than that, and in the end the same to the last digit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.budgets import accounts
from aggregator.budgets.accounts import Ledger, Snapshot, SpentSums, Window
from aggregator.budgets.budget import Budget
from aggregator.budgets.increment import Increment, Source
from aggregator.budgets.model_health import ModelHistory
from aggregator.budgets.period import minutes
from tests.unit.aggregator.budgets.test_accounts import (
    NOW,
    PARTITIONS,
    Event,
    brute_force,
    budget,
    budgets,
    events,
    usages,
)

CLOSED_BEFORE = minutes(NOW) - 600
RUNS = settings(deadline=None, max_examples=40)
on_time = st.builds(replace, events, minute=st.integers(CLOSED_BEFORE, minutes(NOW) + 2000))


def sums_of(window: Window, value: str, records: Sequence[Event]) -> SpentSums:
    mine = [one for one in records if window.start <= one.minute < window.end and value in ("", one.user)]
    return SpentSums(len(mine), sum(one.tokens for one in mine), sum((one.cost for one in mine), Decimal(0)))


class World:
    """The stored rows, the topic of increments and how far it is read, and a ledger.

    `check` is called after everything that happens.
    """

    def __init__(self, kept: Sequence[Budget], check: Callable[["World"], None]) -> None:
        self.kept = list(kept)
        self.stored: list[tuple[Source, list[Event]]] = []
        self.topic: list[Increment] = []
        self.position = 0
        self._check = check
        self.restart()

    def restart(self) -> None:
        """Another process, which begins where Faust has committed."""
        self.state = Ledger()
        for one in self.kept:
            self.state.open(one, NOW)

    def play(self, acts: Sequence["Act"]) -> None:
        for act in acts:
            act(self)
            self._check(self)

    def reconcile(
        self, reading: Sequence["Act"], answering: Sequence["Act"], is_answered: bool, unsummed: str = ""
    ) -> None:
        """The watermark is read first. While `reading` the sums are read: of closed minutes all that is stored by then,
        below the watermark or not. While `answering` they travel. The `unsummed` kind of subject is left out."""
        watermark = {partition: position.offset for partition, position in self.state.positions.items()}
        for source, _ in self.stored:
            watermark[source.partition] = max(source.last, watermark.get(source.partition, -1))
        windows = accounts.begin_snapshot(self.state, NOW)
        self.play(reading)
        held = [
            event
            for source, records in self.stored
            for event in records
            if event.minute < CLOSED_BEFORE or source.last <= watermark.get(source.partition, -1)
        ]
        sums = {
            window: {one: sums_of(window, one, held) for one in values}
            for window, values in windows.items()
            if window.kind != unsummed
        }
        self.play(answering)
        if is_answered:
            assert self.state.pending is not None
            accounts.apply_snapshot(
                self.state, self.state.pending, Snapshot(watermark, CLOSED_BEFORE, sums), ModelHistory()
            )
        else:
            accounts.discard_snapshot(self.state)
        self._check(self)

    @property
    def expected(self) -> dict[str, Decimal]:
        records = [event for _, records in self.stored for event in records]
        return {one.id: brute_force(one, records) for one in self.kept}

    @property
    def counted(self) -> dict[str, Decimal]:
        return {name: account.spent for name, account in self.state.accounts.items() if account.has_snapshot}


Act = Callable[[World], None]


@dataclass(frozen=True)
class Store:
    partition: int
    records: list[Event]
    is_sent: bool

    def __call__(self, world: World) -> None:
        first = sum(len(records) for source, records in world.stored if source.partition == self.partition)
        last = first + len(self.records) - 1
        source = Source(topic="t", topic_id="id", partition=self.partition, first=first, last=last)
        world.stored.append((source, self.records))
        if self.is_sent:
            world.topic.append(Increment(source, usages(self.records)))


@dataclass(frozen=True)
class Read:
    """Some increments, of which the first `again` were read before; none before there is a snapshot."""

    count: int
    again: int

    def __call__(self, world: World) -> None:
        if world.state.has_snapshot:
            first = max(0, world.position - self.again)
            found = world.topic[first : first + self.count]
            world.position = max(world.position, first + len(found))
            for increment in found:
                accounts.apply_increment(world.state, increment)


@dataclass(frozen=True)
class Change:
    number: int
    budget: Budget

    def __call__(self, world: World) -> None:
        number = self.number % len(world.kept)
        name = world.kept[number].id
        world.kept[number] = self.budget.model_copy(update={"id": name})
        world.state.close(name)
        world.state.open(world.kept[number], NOW)


def acts(event: st.SearchStrategy[Event], is_sent: st.SearchStrategy[bool]) -> st.SearchStrategy[list[Act]]:
    store = st.builds(Store, st.integers(0, PARTITIONS - 1), st.lists(event, min_size=1, max_size=3), is_sent)
    read = st.builds(Read, st.integers(1, 4), st.integers(0, 2))
    change = st.builds(Change, st.integers(0, 9), budgets.map(lambda some: some[0]))
    # Mostly stored and read.
    return st.lists(st.one_of(store, store, read, read, change), max_size=4)


def rounds(happening: st.SearchStrategy[list[Act]]) -> st.SearchStrategy[list[tuple[list[Act], ...]]]:
    """Before a snapshot is requested, while ClickHouse reads, while it answers, and after that."""
    return st.lists(st.tuples(happening, happening, happening, happening), min_size=1, max_size=3)


def no_more_than_is_stored(world: World) -> None:
    expected = world.expected
    assert all(spent <= expected[name] for name, spent in world.counted.items())


@RUNS
@given(budgets, rounds(acts(events, st.booleans())), st.data())
def test_no_sum_exceeds_what_is_stored_and_after_a_reconcile_it_is_exact(
    kept: list[Budget], happening: list[tuple[list[Act], ...]], data: st.DataObject
) -> None:
    """Increments are lost and repeated, requests are late, processes die, and ClickHouse does not always answer, or
    not of everything."""
    world = World(kept, no_more_than_is_stored)
    for before, reading, answering, after in happening:
        world.play(before)
        unsummed = data.draw(st.sampled_from(["", "", "total", "user"]))
        world.reconcile(reading, answering, is_answered=data.draw(st.booleans()), unsummed=unsummed)
        world.play(after)
        if data.draw(st.integers(0, 3)) == 0:
            world.restart()
            world.position -= min(world.position, data.draw(st.integers(0, 3)))
    world.reconcile([], [], is_answered=True)
    assert world.counted == world.expected
    # All increments that come now are in the snapshot.
    Read(count=len(world.topic), again=len(world.topic))(world)
    assert world.counted == world.expected


def test_a_late_request_that_is_stored_while_clickhouse_reads_counts_once() -> None:
    """Rollups have it though it lies beyond the watermark, and its increment comes later."""
    one = budget(unit="requests")
    late = Event("ada", CLOSED_BEFORE - 1, 1, Decimal(1))
    world = World([one], no_more_than_is_stored)
    world.reconcile([], [], is_answered=True)
    world.reconcile([Store(0, [late], is_sent=True)], [], is_answered=True)
    assert world.counted == world.expected == {"b": Decimal(1)}
    world.play([Read(count=1, again=0)])
    assert world.counted == {"b": Decimal(1)}


def test_an_account_that_a_snapshot_leaves_out_counts_what_came_meanwhile_once() -> None:
    """As of tags that take too long to be summed."""
    kept = [budget(unit="requests"), budget("u", unit="requests", scope={"kind": "user", "value": "ada"})]
    world = World(kept, no_more_than_is_stored)
    world.reconcile([], [], is_answered=True)
    request = Store(0, [Event("ada", minutes(NOW), 1, Decimal(1))], is_sent=True)
    world.reconcile([request, Read(1, 0)], [request, Read(1, 0)], is_answered=True, unsummed="user")
    assert world.counted == world.expected == {"b": Decimal(2), "u": Decimal(2)}


def test_a_recreated_topic_is_noticed_though_a_snapshot_came_in_between() -> None:
    """Its offsets begin at 0 again, below the watermark."""
    one = budget(unit="requests")
    world = World([one], no_more_than_is_stored)
    world.reconcile([], [], is_answered=True)
    event = Event("ada", minutes(NOW), 1, Decimal(1))
    world.play([Store(0, [event, event], is_sent=True), Read(1, 0)])
    world.reconcile([], [], is_answered=True)
    recreated = Source(topic="t", topic_id="recreated", partition=0, first=0, last=0)
    assert accounts.apply_increment(world.state, Increment(recreated, usages([event]))) is not None
    assert world.counted == {"b": Decimal(3)}


def exact_once_all_is_read(world: World) -> None:
    if world.state.has_snapshot and world.position >= len(world.topic):
        expected = world.expected
        assert all(spent == expected[name] for name, spent in world.counted.items())


@RUNS
@given(budgets, rounds(acts(on_time, st.just(True))))
def test_a_sum_is_exact_at_any_moment_when_no_increment_is_lost_and_no_request_is_late(
    kept: list[Budget], happening: list[tuple[list[Act], ...]]
) -> None:
    """While a snapshot is taken too, once all increments are read."""
    world = World(kept, exact_once_all_is_read)
    world.reconcile([], [], is_answered=True)
    for before, reading, answering, after in happening:
        world.play(before)
        world.reconcile([*reading, Read(99, 0)], [*answering, Read(99, 0)], is_answered=True)
        world.play([*after, Read(99, 0)])
