"""A call to ClickHouse that waits for no reader: it has a thread, and so a connection, of its own."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs `function` on a thread of its own, once at a time: whoever asks meanwhile gets the same answer."""

    def __init__(self, name: str, function: Callable[[], T]) -> None:
        self._function = function
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = threading.Lock()
        self._flight: Future[T] | None = None
        self._started_at = 0.0

    def start(self) -> Future[T]:
        """The flight that is under way, or a new one."""
        with self._lock:
            if self._flight is None or self._flight.done():
                self._started_at = time.monotonic()
                self._flight = self._thread.submit(self._function)
            return self._flight

    async def result(self, within_seconds: float | None) -> T:
        """Raises TimeoutError once the flight takes longer than that, and what the function raises.

        The flight goes on without whoever gives up.
        """
        flight = self.start()
        left = within_seconds and self._started_at + within_seconds - time.monotonic()
        async with asyncio.timeout(left):
            return await asyncio.shield(asyncio.wrap_future(flight))
