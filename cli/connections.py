"""Connections of the API's server: how many, and how long one may be open while no request of it is being answered."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger(__name__)


@dataclass
class ConnectionBounds:
    """What the connections of one server share. `waiting` are those without a whole request, the longest waiting
    first."""

    most: int
    head_seconds: float
    waiting: dict["Connection", None] = field(default_factory=dict)


class Connection(H11Protocol):
    """Uvicorn's connection, closed when its client sends no request or reads no answer for too long.

    Uvicorn itself closes only connections that have had a request and send nothing afterwards. Here the head of a
    request must be complete `head_seconds` after the connection was opened or the answer before was written, whatever
    comes of it. A request that is being answered has limits of its own, but if its client reads nothing for that long,
    the connection is closed as well: uvicorn would wait for ever.

    One connection more than `most` closes the one that has waited longest for a request, its body included: where that
    is read before the key is looked at, anybody can leave one unfinished. Those whose request is whole stay. Where none
    waits, uvicorn answers the new one with 503 (`limit_concurrency`).
    """

    def __init__(self, *args: Any, bounds: ConnectionBounds, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bounds = bounds
        self._timer: asyncio.TimerHandle | None = None
        # What was to be read when the timer was started, and whether all of it was since.
        self._unread_bytes = 0
        self._has_drained = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._bounds.most and self._bounds.waiting:
            next(iter(self._bounds.waiting)).close_now()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._bounds.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def handle_events(self) -> None:
        super().handle_events()
        if self._is_answering and not self.cycle.more_body:
            self._bounds.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        # Before: it may go on with a request that has come already.
        self._wait()
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._has_drained = True
        super().resume_writing()

    def close_now(self) -> None:
        """Without waiting until everything is read that was sent."""
        self._bounds.waiting.pop(self, None)
        self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing()

    def _wait(self) -> None:
        """From now on the client has its time for a request."""
        self._bounds.waiting.pop(self, None)
        self._bounds.waiting[self] = None
        self._unread_bytes = 0
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._bounds.head_seconds, self._on_time)

    def _on_time(self) -> None:
        unread_bytes = self.transport.get_write_buffer_size()
        is_stuck = unread_bytes >= self._unread_bytes > 0 and not self._has_drained
        if is_stuck or not (self._is_answering or unread_bytes):
            self.close_now()
            return
        self._unread_bytes, self._has_drained = unread_bytes, False
        self._start_timer()
