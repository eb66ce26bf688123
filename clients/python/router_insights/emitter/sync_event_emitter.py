"""Putting request events on Kafka from a gateway that does not use asyncio."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar

from router_insights.emitter.event import RequestEvent, encode
from router_insights.emitter.event_emitter import CLOSE_SECONDS, EventEmitter

Started = TypeVar("Started", bound="SyncEventEmitter")


class SyncEventEmitter:
    """`EventEmitter` for programs without asyncio: the same arguments and errors, calls that block.

    It runs on a thread of its own and may be shared by any number of threads; what one thread emits under one
    key keeps its order. Use it as `with SyncEventEmitter(...) as emitter`; one that is still open when the
    interpreter exits is closed then. A process that forks starts one in each child: after a fork the
    parent's raises RuntimeError in the child.
    """

    def __init__(self, bootstrap_servers: str, **options: Any) -> None:
        self._emitter = EventEmitter(bootstrap_servers, **options)
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process_id = os.getpid()
        self._is_closed = False

    def start(self) -> None:
        """Connect; raises KafkaUnavailableError."""
        if self._thread is not None:
            return
        is_running = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(is_running,), name="event-emitter", daemon=True)
        self._thread.start()
        is_running.wait()
        try:
            self._call(self._emitter.start)
        except BaseException:
            self._stop_thread()
            raise
        atexit.register(self.close)

    def _run(self, is_running: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._loop.call_soon(is_running.set)
            self._loop.run_forever()
        finally:
            _close_loop(self._loop)

    def _call(self, method: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Run `method` on the emitter's thread; its result or error is this call's."""
        if os.getpid() != self._process_id:
            raise RuntimeError("this event emitter belongs to the process before the fork: start one in each process")
        with self._lock:
            if self._loop is None or self._is_closed:
                raise RuntimeError(f"the event emitter is {'closed' if self._is_closed else 'not started'}")
            future = asyncio.run_coroutine_threadsafe(method(*arguments), self._loop)
        future.result()

    def emit(self, event: RequestEvent | Mapping[str, Any]) -> None:
        """Take one event; blocks while the buffer is full. Raises as `EventEmitter.emit` does."""
        self._call(self._emitter.emit_raw, *encode(event))

    def emit_raw(self, key: bytes | None, value: bytes) -> None:
        """Take one event that is encoded already. Raises as `EventEmitter.emit_raw` does."""
        self._call(self._emitter.emit_raw, key, value)

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until everything taken so far is acknowledged. Raises as `EventEmitter.flush` does."""
        self._call(self._emitter.flush, timeout_seconds)

    def close(self) -> None:
        """Flush and end. Raises as `EventEmitter.close` does. May be repeated; does nothing after a fork."""
        if self._thread is None or os.getpid() != self._process_id:
            return
        with self._closing:
            if self._is_closed:
                return
            atexit.unregister(self.close)
            try:
                self._call(self._emitter.close)
            finally:
                self._stop_thread()

    def _stop_thread(self) -> None:
        with self._lock:
            self._is_closed = True
        if self._loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_stop_loop(), self._loop)
            self._thread.join()

    def __enter__(self: Started) -> Started:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _stop_loop() -> None:
    """Stop the running loop once the calls under way have returned."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=CLOSE_SECONDS)
    asyncio.get_running_loop().stop()


def _close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End what still runs in a stopped loop, as asyncio.Runner does, which Python 3.10 has not."""
    try:
        loop.run_until_complete(_cancel_others())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
