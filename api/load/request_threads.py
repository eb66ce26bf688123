"""The threads on which requests are answered: one each, so their number bounds how many are under way."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import structlog

from api import metrics
from api.errors import ApiError

log = structlog.get_logger()

T = TypeVar("T")

RETRY_AFTER = {"Retry-After": "1"}
# A key that asks too much does so many times a second.
LOG_AGAIN_SECONDS = 10.0


class RequestThreads:
    """At most `most` requests are under way, and `most_of_key` of one key. One more is refused and never waits."""

    def __init__(self, most: int, most_of_key: int) -> None:
        self._most = most
        self._most_of_key = most_of_key
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(most, "request")
        self._logged_at: dict[str, float] = {}

    async def run(self, key: str, answer: Callable[[], T]) -> T:
        """What `answer()` returns, on a thread. Raises ApiError 429 or 503 for a request too many.

        A request whose task is cancelled is under way until its thread is done.
        """
        self._enter(key)
        future = self._threads.submit(copy_context().run, answer)
        future.add_done_callback(lambda _: self._leave(key))
        return await asyncio.wrap_future(future)

    def check(self, key: str) -> None:
        """Raises ApiError 429 or 503 where one more request of the key would be too many."""
        with self._lock:
            self._check(key)

    def _enter(self, key: str) -> None:
        with self._lock:
            self._check(key)
            self._under_way[key] += 1
        metrics.REQUESTS_UNDER_WAY.inc()

    def _check(self, key: str) -> None:
        of_key, of_all = self._under_way[key], self._under_way.total()
        if of_key >= self._most_of_key:
            metrics.RATE_LIMITED.labels("under_way").inc()
            self._log(key, of_key, "INSIGHTS_MAX_REQUESTS_OF_KEY")
            message = f"This key has {of_key} requests under way, which is the most it may have; try again in 1 s."
            raise ApiError(429, message, headers=RETRY_AFTER)
        if of_all >= self._most:
            metrics.OVERLOADED.inc()
            self._log("", of_all, "INSIGHTS_MAX_REQUESTS")
            raise ApiError(503, "Too many requests are under way; try again in 1 s.", headers=RETRY_AFTER)

    def _leave(self, key: str) -> None:
        with self._lock:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
        metrics.REQUESTS_UNDER_WAY.dec()

    def _log(self, key: str, under_way: int, setting: str) -> None:
        """`key` is empty where all keys together are too many."""
        now = time.monotonic()
        if now - self._logged_at.get(key, float("-inf")) >= LOG_AGAIN_SECONDS:
            self._logged_at[key] = now
            log.warning("requests are refused", key=key or "all", under_way=under_way, limit=setting)
