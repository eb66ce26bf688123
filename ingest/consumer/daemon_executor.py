"""An executor whose threads do not keep the process from exiting."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

CLOSE_SECONDS = 0.5
Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class DaemonExecutor:
    """Runs functions in `count` threads. At exit Python waits for the threads of a ThreadPoolExecutor, so one that
    hangs in an insert would keep a worker from exiting for minutes. These are daemon threads, which it does not wait
    for."""

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"insert-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun."""
        return self._jobs.qsize()

    async def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        future: Future[Result] = Future()
        # The thread logs with the caller's context variables.
        context = copy_context()
        self._jobs.put((future, lambda: context.run(function, *arguments)))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the threads, all but those that take longer than CLOSE_SECONDS. Idle ones must end: the engine that they
        hold would be torn down with the interpreter, which may abort the process."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
