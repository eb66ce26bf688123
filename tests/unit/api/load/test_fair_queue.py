"""The order of queries, held to a plain model of it: everything in one list, looked through from the start."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.load.fair_queue import FairQueue, QueueFullError

MOST_WAITING = 4
KEYS = st.sampled_from("abcd")
# What happens to a queue: a key asks, somebody takes what is next, a key's oldest is done, a key's item is cancelled.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS),
        st.tuples(st.just("take"), st.just("")),
        st.tuples(st.just("release"), KEYS),
        st.tuples(st.just("remove"), KEYS),
    ),
    max_size=120,
)


@dataclass
class Model:
    """`turns` are the keys that wait, the next one first; `items` everything that waits, in the order it came."""

    places: int
    turns: list[str] = field(default_factory=list)
    items: list[tuple[str, int]] = field(default_factory=list)
    taken: list[tuple[str, int]] = field(default_factory=list)

    def put(self, item: tuple[str, int]) -> bool:
        if [key for key, _ in self.items].count(item[0]) >= MOST_WAITING:
            return False
        self.items.append(item)
        if item[0] not in self.turns:
            self.turns.append(item[0])
        return True

    def take(self) -> tuple[str, int] | None:
        own = Counter(key for key, _ in self.taken)
        for key in self.turns:
            if own[key] < self.places - len(self.taken):
                item = next(item for item in self.items if item[0] == key)
                self.forget(item)
                if key in self.turns:
                    self.turns.remove(key)
                    self.turns.append(key)
                self.taken.append(item)
                return item
        return None

    def forget(self, item: tuple[str, int]) -> None:
        self.items.remove(item)
        if item[0] not in [key for key, _ in self.items]:
            self.turns.remove(item[0])


@given(STEPS, st.integers(1, 9))
def test_it_does_what_the_model_does(steps: list[tuple[str, str]], places: int) -> None:
    model, queue = Model(places), FairQueue[tuple[str, int]](places, MOST_WAITING)
    for number, (what, key) in enumerate(steps):
        if what == "put":
            if model.put((key, number)):
                queue.put(key, (key, number))
            else:
                with pytest.raises(QueueFullError):
                    queue.put(key, (key, number))
        elif what == "take":
            assert queue.take() == model.take()
        elif what == "release" and (done := next((item for item in model.taken if item[0] == key), None)):
            model.taken.remove(done)
            queue.release(key)
        elif what == "remove" and (gone := [item for item in model.items if item[0] == key][-1:]):
            assert queue.remove(key, lambda item, gone=gone: item in gone) == gone  # type: ignore[misc]
            model.forget(gone[0])
        assert (queue.waiting, queue.taken) == (len(model.items), len(model.taken))
        assert queue.taken <= places


@given(st.dictionaries(KEYS, st.integers(1, MOST_WAITING), min_size=1), st.integers(1, 9))
def test_everything_that_waits_is_taken_in_the_end_and_in_the_order_of_its_key(
    asked: dict[str, int], places: int
) -> None:
    queue = FairQueue[tuple[str, int]](places, MOST_WAITING)
    for key, count in asked.items():
        for number in range(count):
            queue.put(key, (key, number))
    taken, running = [], []
    while queue.waiting:
        while (item := queue.take()) is not None:
            taken.append(item)
            running.append(item)
        assert running, "something waits though nothing runs"
        queue.release(running.pop(0)[0])
    assert Counter(key for key, _ in taken) == asked
    for key, count in asked.items():
        assert [number for name, number in taken if name == key] == list(range(count))


@given(st.integers(1, MOST_WAITING), st.integers(2, 9))
def test_whoever_asks_for_one_thing_is_next_however_much_another_key_waits_for(waiting: int, places: int) -> None:
    queue = FairQueue[str](places, MOST_WAITING)
    while queue.waiting < waiting:
        queue.put("heavy", "heavy")
        queue.take()
    queue.put("light", "light")
    assert queue.take() == "light"


def test_a_key_alone_has_half_of_the_places() -> None:
    for places in range(1, 10):
        queue = FairQueue[int](places, 100)
        for number in range(50):
            queue.put("a", number)
        alone = 0
        while queue.take() is not None:
            alone += 1
        assert alone == (places + 1) // 2


def test_cancelled_items_free_their_room_and_take_no_place() -> None:
    queue = FairQueue[int](2, 3)
    for number in range(3):
        queue.put("a", number)
    assert queue.take() == 0
    assert queue.remove("a", lambda number: number in (0, 2)) == [2]
    assert (queue.waiting, queue.taken) == (1, 1)
    assert queue.remove("nobody", lambda _: True) == []
    queue.put("a", 3)
    queue.release("a")
    assert queue.take() == 1
