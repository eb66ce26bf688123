"""Answers in the protocol that a request speaks: Connect with JSON or binary messages, or gRPC-Web.

`connectrpc` does the work. Its WSGI application runs within a thread, where reading, encoding and compressing large
answers keeps nobody else waiting.
"""

import re
from collections.abc import Callable
from functools import partial
from io import BytesIO, StringIO
from typing import Any, NoReturn

from connectrpc.compression.gzip import GzipCompression
from connectrpc.interceptor import InterceptorSync, MetadataInterceptorSync
from connectrpc.request import RequestContext
from connectrpc.server import ConnectWSGIApplication, EndpointSync
from fastapi import Request, Response
from protobuf import Message

from api.connect.codecs import CODECS
from api.connect.errors import connect_error
from api.connect.methods import METHODS, PACKAGE, Method
from api.errors import ApiError, ErrorFormat, invalid_parameters

Context = RequestContext[Message, Message]
Answer = Callable[[Method, Message, Context], Message]

# gRPC itself needs HTTP/2.
GRPC = re.compile(r"application/grpc(\+|$)")
# What a page in a browser sends and reads, in either protocol.
HEADERS = (
    "Connect-Protocol-Version",
    "Connect-Timeout-Ms",
    "Grpc-Timeout",
    "X-Grpc-Web",
    "X-User-Agent",
)
ANSWER_HEADERS = ("Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin")
# Fast: an answer is compressed once and read once.
COMPRESSIONS = (GzipCompression(level=1),)


class MethodsApplication(ConnectWSGIApplication):
    """Every method, answered by one function."""

    path = ""

    def __init__(self, answer: Answer, *interceptors: InterceptorSync) -> None:
        endpoints = {
            method.path: EndpointSync.unary(method=method.info, function=partial(answer, method)) for method in METHODS
        }
        super().__init__(endpoints=endpoints, interceptors=interceptors, compressions=COMPRESSIONS, codecs=CODECS)


def respond(request: Request, body: bytes, application: MethodsApplication) -> Response:
    """Blocks while the application works. Raises RuntimeError for a fault in it, such as an answer it cannot write."""
    if GRPC.match(request.headers.get("content-type", "")):
        return Response(status_code=415, headers={"Accept-Post": "application/json, application/proto"})
    started: list[Any] = []
    environ = _environ(request, body)
    content = b"".join(application(environ, lambda *start: started.extend(start)))  # type: ignore[arg-type]
    if faults := environ["wsgi.errors"].getvalue():
        raise RuntimeError(faults)
    status, headers = started
    response = Response(content, int(status.split()[0]))
    for name, value in headers:
        response.headers.append(name, value)
    return response


def _environ(request: Request, body: bytes) -> dict[str, Any]:
    """What WSGI calls a request."""
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    return {
        **headers,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.scope["path"],
        "QUERY_STRING": request.url.query,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        "wsgi.errors": StringIO(),
    }


class Refusal(MetadataInterceptorSync[None]):
    """Ends a request before its body is read."""

    def __init__(self, error: ApiError) -> None:
        self._error = error

    def on_start_sync(self, context: Context, /) -> None:
        refuse(context, self._error)


def refuse(context: Context, error: ApiError) -> NoReturn:
    """Raises `error` in the protocol's form."""
    context.response_headers.update(error.headers or {})
    raise connect_error(error)


def _unreachable(method: Method, asked: Message, context: Context) -> Message:
    raise AssertionError("a refused request reaches no method")


def _refused(request: Request, error: ApiError) -> Response:
    return respond(request, b"", MethodsApplication(_unreachable, Refusal(error)))


FORMAT = ErrorFormat(f"/{PACKAGE}.", _refused, invalid_parameters)
