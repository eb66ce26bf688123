"""The threads on which the API reads ClickHouse. They keep their connections."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog

from api import metrics
from api.load.call import CallOverError, ReadCall
from api.load.fair_queue import FairQueue

log = structlog.get_logger()

T = TypeVar("T")

# Several times what the requests that a key may have under way ask for at once.
MOST_WAITING_OF_KEY = 1000
# A query that was about to start when it was killed goes on, so kills are repeated until it is gone.
KILL_AGAIN_SECONDS = 0.25
CANNOT_KILL_SECONDS = 5.0


@dataclass(eq=False)
class _Query:
    call: ReadCall
    key: str
    work: Callable[[], Any]
    context: Context = field(default_factory=copy_context)
    future: Future[Any] = field(default_factory=Future)


class QueryThreads:
    """Runs queries in the order of a FairQueue, and ends those of calls that are over.

    `kill` ends queries in ClickHouse by the ids of their calls; it may raise anything.
    May be used by several threads at once.
    """

    def __init__(self, threads: int, kill: Callable[[Sequence[str]], None]) -> None:
        self._kill = kill
        self._queue: FairQueue[_Query] = FairQueue(threads, MOST_WAITING_OF_KEY)
        self._running: set[_Query] = set()
        self._lock = threading.Lock()
        self._is_killing = False
        self._threads = ThreadPoolExecutor(threads, "query")
        self._killer = ThreadPoolExecutor(1, "kill-query")

    def submit(self, call: ReadCall, key: str, work: Callable[[], T]) -> Future[T]:
        """Raises CallOverError for a call that is over, and QueueFullError."""
        query = _Query(call, key, work)
        with self._lock:
            call.remaining_seconds()
            self._queue.put(key, query)
            metrics.QUERIES_WAITING.inc()
            self._start()
        return query.future

    def end(self, call: ReadCall, key: str) -> int:
        """Nobody waits for this call any more: what waits is dropped, what runs is killed. Returns how many both are.

        Whoever waits for one of them gets CallOverError at once. A thread is free again when its query has ended.
        """
        with self._lock:
            call.is_over = True
            waiting = self._queue.remove(key, lambda query: query.call is call)
            metrics.QUERIES_WAITING.dec(len(waiting))
            running = [query for query in self._running if query.call is call]
            cancelled = [query for query in (*waiting, *running) if not query.future.done()]
            for query in cancelled:
                query.future.set_exception(CallOverError())
            if running and not self._is_killing:
                self._is_killing = True
                self._killer.submit(self._kill_all)
        return len(cancelled)

    def _start(self) -> None:
        """Start what may run. Under the lock."""
        while (query := self._queue.take()) is not None:
            metrics.QUERIES_WAITING.dec()
            metrics.QUERIES_RUNNING.inc()
            self._running.add(query)
            self._threads.submit(query.context.run, self._run, query)

    def _run(self, query: _Query) -> None:
        outcome: Callable[[], None]
        try:
            outcome = partial(query.future.set_result, query.work())
        except BaseException as error:
            outcome = partial(query.future.set_exception, error)
        with self._lock:
            self._running.remove(query)
            self._queue.release(query.key)
            metrics.QUERIES_RUNNING.dec()
            self._start()
            if not query.future.done():
                outcome()

    def _kill_all(self) -> None:
        """Kill the queries of calls that are over until none runs."""
        while ids := self._ids_to_kill():
            pause_seconds = KILL_AGAIN_SECONDS
            try:
                self._kill(ids)
            except Exception as error:
                # They end by themselves when their request's time is over.
                log.warning("queries cannot be killed in ClickHouse", queries=len(ids), error=str(error))
                pause_seconds = CANNOT_KILL_SECONDS
            time.sleep(pause_seconds)

    def _ids_to_kill(self) -> list[str]:
        with self._lock:
            ids = sorted({query.call.id for query in self._running if query.call.is_over})
            self._is_killing = bool(ids)
        return ids
