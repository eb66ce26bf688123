"""Whose query is next: keys take turns, and no key takes every place."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueFullError(Exception):
    """As many items of this key wait as may."""


class FairQueue(Generic[T]):
    """Items of many keys that wait for one of `places`.

    Keys take turns; the items of one key keep their order. A key takes another place only while more places are free
    than it has: one that asks for much leaves room, so the first item of another key goes next. At most
    `most_waiting` items of one key wait.

    Not for several threads at once.
    """

    def __init__(self, places: int, most_waiting: int) -> None:
        self._places = places
        self._most_waiting = most_waiting
        # In the order of their turns; only keys with waiting items.
        self._waiting: dict[str, deque[T]] = {}
        self._taken: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def taken(self) -> int:
        return self._taken.total()

    def put(self, key: str, item: T) -> None:
        """Raises QueueFullError."""
        if len(self._waiting.get(key, ())) >= self._most_waiting:
            raise QueueFullError
        self._waiting.setdefault(key, deque()).append(item)

    def take(self) -> T | None:
        """The next item, which has its place until `release`; None if none may have one now."""
        free = self._places - self.taken
        key = next((key for key in self._waiting if self._taken[key] < free), None)
        if key is None:
            return None
        items = self._waiting.pop(key)
        item = items.popleft()
        if items:
            self._waiting[key] = items
        self._taken[key] += 1
        return item

    def release(self, key: str) -> None:
        """An item of the key that was taken is done."""
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]

    def remove(self, key: str, is_unwanted: Callable[[T], bool]) -> list[T]:
        """Take back what waits; the items in their order. Whatever was taken keeps its place."""
        items = self._waiting.get(key, deque())
        removed = [item for item in items if is_unwanted(item)]
        if removed:
            kept = deque(item for item in items if not is_unwanted(item))
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key]
        return removed
