"""For every request, whatever its route: an id, bounds on size and time, headers, a log line, metrics."""

import asyncio
import re
import time
import uuid

import pyarrow as pa
import structlog
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanKind, StatusCode, get_tracer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors, metrics
from api.events.routes import MAX_BODY_BYTES as MAX_EVENTS_BYTES
from api.load.call import ReadCall

log = structlog.get_logger()
# Spans go nowhere unless `cli.tracing` has set up where to.
TRACER = get_tracer(__name__)

# Anything else might break out of a log line or a header.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
MAX_BODY_BYTES = 1024 * 1024
BODY_LIMITS = {"/v1/events": MAX_EVENTS_BYTES}
UNKNOWN_ROUTE = "unknown"
# Any other method is one label: callers without a key choose it, and each label is a series for ever.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNKNOWN_METHOD = "unknown"
SECURITY_HEADERS = {
    # Answers hold what people wrote.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RequestId:
    """Adopts `X-Request-ID`, or makes one; every log line of the request and the answer carry it.

    Outermost, so that it also sees the answers of the others: it counts, times and logs each request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        given = asked.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        span = TRACER.start_as_current_span(_method(scope), context=extract(asked), kind=SpanKind.SERVER)
        with structlog.contextvars.bound_contextvars(request_id=request_id), span as current:
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                if status:
                    raise
                await errors.on_fault(Request(scope), error)(scope, receive, send_with_headers)
            finally:
                _account(scope, status, time.perf_counter() - started)
                _describe(current, scope, status, request_id)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else UNKNOWN_METHOD


def _account(scope: Scope, status: int, seconds: float) -> None:
    # The template, not the path: paths hold ids.
    route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
    method = _method(scope) if route != UNKNOWN_ROUTE else UNKNOWN_METHOD
    metrics.REQUESTS.labels(method, route, status).inc()
    metrics.REQUEST_SECONDS.labels(method, route).observe(seconds)
    caller = getattr(scope.get("state", {}).get("caller"), "name", None)
    log.info("request", method=_method(scope), route=route, status=status, ms=round(seconds * 1000, 1), key=caller)


def _describe(span: Span, scope: Scope, status: int, request_id: str) -> None:
    """Attributes by OpenTelemetry's names. No paths and queries: they hold ids and what people search for."""
    route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
    span.update_name(f"{_method(scope)} {route}")
    span.set_attributes(
        {
            "http.request.method": _method(scope),
            "http.route": route,
            "http.response.status_code": status,
            "insights.request_id": request_id,
        }
    )
    if status >= 500:
        span.set_status(StatusCode.ERROR)


# Answers without an end.
STREAMS = frozenset({"/v1/usage/live/stream"})


class Bounds:
    """Ends a request whose body is too large, or that is not answered in time."""

    def __init__(self, app: ASGIApp, timeout_seconds: float) -> None:
        self._app = app
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BODY_LIMITS.get(scope["path"], MAX_BODY_BYTES)
        size, has_started = 0, False
        scope.setdefault("state", {})["call"] = ReadCall(self._timeout_seconds)

        async def receive_within() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, f"The body may have at most {limit} bytes.")
            return message

        async def send_noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            async with asyncio.timeout(None if scope["path"] in STREAMS else self._timeout_seconds):
                await self._app(scope, receive_within, send_noting)
        except TimeoutError:
            if has_started:
                raise
            await errors.on_timeout(Request(scope))(scope, receive, send)


class HeadAsGet:
    """Answers HEAD like GET, without the body. Not for streams: the answer would never be complete."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"] in STREAMS:
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # In place: outer middleware reads the route that the router writes into it.
        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_without_body)
        finally:
            scope["method"] = "HEAD"


# By the name in `Content-Encoding`, the name that Arrow's codecs have.
ENCODINGS = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
ENTITY_HEADERS = (b"content-encoding", b"content-length")


class Inflate:
    """Inflates bodies that are sent with gzip or zstd. The bound of a body also holds for what it is inflated to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (encoding := _encoding(scope)) == "identity":
            await self._app(scope, receive, send)
            return
        limit, is_read = BODY_LIMITS.get(scope["path"], MAX_BODY_BYTES), False

        async def receive_inflated() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            if encoding not in ENCODINGS:
                raise HTTPException(415, f"content-encoding must be one of {', '.join(ENCODINGS)}, identity")
            body = await Request(scope, receive).body()
            return {"type": "http.request", "body": await run_in_threadpool(_inflated, body, encoding, limit)}

        # In place, as above; the length is that of what came.
        scope["headers"] = [header for header in scope["headers"] if header[0] not in ENTITY_HEADERS]
        await self._app(scope, receive_inflated, send)


def _encoding(scope: Scope) -> str:
    return Headers(scope=scope).get("content-encoding", "identity").strip().lower() or "identity"


def _inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Raises HTTPException 400 for what cannot be inflated, 413 for what is larger then than `limit`."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), ENCODINGS[encoding]) as stream:
            inflated: bytes = stream.read(limit + 1)
    except (OSError, pa.ArrowException):
        raise HTTPException(400, f"The body is not what content-encoding says: {encoding}.") from None
    if len(inflated) > limit:
        raise HTTPException(413, f"The body may have at most {limit} bytes, inflated.")
    return inflated
