"""How a route reads: on a thread, as one of the requests under way, and no longer than anybody waits for the answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import structlog
from fastapi import Depends, Request
from starlette.types import Receive

from api import metrics
from api.errors import ApiError
from api.load.request_threads import RequestThreads
from api.security.auth import RequestCaller
from api.security.reader import Reader

log = structlog.get_logger()

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Reading:
    """The reader of a request, and where its answer is worked out."""

    reader: Reader
    requests: RequestThreads
    receive: Receive

    async def run(self, answer: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `answer(reader, ...)` returns, which may block. Its queries are ended if the client goes away or the
        request runs into its time limit.

        Raises ApiError 429 or 503 for a request too many, 499 when the client has gone, HTTPException for a body that
        is too large or in no known encoding, and what `answer` raises.
        """
        work = partial(answer, self.reader, *args, **kwargs)
        answering = asyncio.ensure_future(self.requests.run(self.reader.caller.name, work))
        leaving = asyncio.ensure_future(_disconnect(self.receive))
        why = "timeout"
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            why = "failure" if answering.done() else "disconnect"
            if not answering.done():
                leaving.result()
                raise ApiError(499, "The connection closed before the answer was there.")
            return answering.result()
        finally:
            leaving.cancel()
            answering.cancel()
            self._end(why)

    def _end(self, why: str) -> None:
        cancelled = self.reader.threads.end(self.reader.call, self.reader.caller.name)
        if cancelled:
            metrics.QUERIES_CANCELLED.labels(why).inc(cancelled)
            log.warning("queries cancelled", reason=why, queries=cancelled, key=self.reader.caller.name)


async def _disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection. Whatever is left of the body is of no interest, but raises
    HTTPException where it is too large or in no known encoding."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reader(request: Request, caller: RequestCaller) -> Reader:
    state: Any = request.app.state
    return Reader(state.warehouse, state.limits, caller, state.query_threads, request.state.call)


AppReader = Annotated[Reader, Depends(_reader)]


async def _reading(request: Request, reader: AppReader) -> Reading:
    requests: RequestThreads = request.app.state.request_threads
    # Before the body is looked at: to refuse must cost less than to ask.
    requests.check(reader.caller.name)
    return Reading(reader, requests, request.receive)


AppReading = Annotated[Reading, Depends(_reading)]
