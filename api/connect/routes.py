"""The methods of the proto services, each at the path where Connect and gRPC-Web ask for it."""

import asyncio

from fastapi import APIRouter, Request, Response
from protobuf import Message

from api import errors
from api.connect.deadlines import seconds_left
from api.connect.methods import METHODS, Method
from api.connect.protocol import Context, MethodsApplication, refuse, respond
from api.errors import ApiError, invalid_argument
from api.security.reader import Reader
from api.security.reading import AppReading

# The proto describes these methods; the OpenAPI document has the REST routes.
router = APIRouter(include_in_schema=False)

PARAMETERS_OF_GET = ("message", "encoding", "base64", "compression", "connect")


async def serve(request: Request, reading: AppReading) -> Response:
    _check_parameters(request)
    body = await request.body()
    seconds = seconds_left(request.headers)
    if seconds is not None:
        reading.reader.call.end_within(seconds)
    try:
        async with asyncio.timeout(seconds):
            return await reading.run(_answer, request, body)
    except TimeoutError:
        raise ApiError(504, "The request was not answered within the time that the client gave it.") from None


def _check_parameters(request: Request) -> None:
    """Raises ApiError 400: a filter in the query string would select nothing."""
    known = PARAMETERS_OF_GET if request.method == "GET" else ()
    for name in request.query_params:
        if name not in known:
            raise invalid_argument(name, "is not a parameter of this endpoint; filters go into the message", known)


def _answer(reader: Reader, request: Request, body: bytes) -> Response:
    def answer(method: Method, asked: Message, context: Context) -> Message:
        try:
            return method.answer(reader, asked)
        except Exception as error:
            refuse(context, errors.api_error_of(request, error))

    return respond(request, body, MethodsApplication(answer))


for each in METHODS:
    router.add_api_route(each.path, serve, methods=["GET", "POST"], name=each.name)
