"""Errors as JSON: `{code, message, details}`, unless the path has a format of its own (`ErrorFormat`)."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from aggregator.clickhouse.client import NOT_MIGRATED_CODES, DatabaseError, WarehouseUnavailableError

log = structlog.get_logger()

CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_body",
    429: "rate_limited",
    499: "client_closed_request",
    500: "internal",
    503: "unavailable",
    504: "deadline_exceeded",
}
MEANINGS = {
    400: "A parameter is unknown, repeated, malformed or out of range; `details` names it and what is allowed.",
    401: "The key is missing or wrong.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    413: "The body is larger than 8 MiB.",
    415: "The body is neither application/json nor application/x-ndjson.",
    422: "The body is not valid; `details` names line, field and reason. Nothing of it was accepted.",
    429: "Too many requests with this key, in a time or at once, or too many wrong keys; `Retry-After` says when to try"
    " again.",
    500: "A fault of this service.",
    503: "A part behind this service cannot serve right now, too many requests are under way (`Retry-After`), or the"
    " query needs more than it may use.",
    504: "The query ran into its time limit; a narrower time range helps.",
}


class ErrorDetail(BaseModel):
    """What is wrong with one value."""

    field: str = Field(description="Parameter, or path inside the body; empty when the whole body is meant.")
    message: str = Field(description="What is wrong with it, for people.")
    allowed: list[str] | None = Field(None, description="Every allowed value; null where they cannot be listed.")
    line: int | None = Field(None, description="Line of an NDJSON body, from 1; null for anything else.")


class ErrorAnswer(BaseModel):
    """Whatever goes wrong is answered so."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "code": "invalid_argument",
                    "message": "order_direction: Input should be 'asc' or 'desc'",
                    "details": [
                        {
                            "field": "order_direction",
                            "message": "Input should be 'asc' or 'desc'",
                            "allowed": ["asc", "desc"],
                        }
                    ],
                }
            ]
        }
    )

    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="A sentence for people.")
    details: list[ErrorDetail] = Field(description="Empty when there is nothing to name.")


class ApiError(Exception):
    """An error answer. Raised anywhere below a route; answered in the format of the path."""

    def __init__(
        self,
        status: int,
        message: str,
        details: Iterable[ErrorDetail] = (),
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODES[status]
        self.message = message
        self.details = list(details)
        self.headers = headers

    @property
    def retry_after_seconds(self) -> int | None:
        """What `Retry-After` says; None without it."""
        seconds = (self.headers or {}).get("Retry-After")
        return int(seconds) if seconds else None


def invalid_argument(field: str, message: str, allowed: Iterable[str] | None = None) -> ApiError:
    detail = ErrorDetail(field=field, message=message, allowed=None if allowed is None else list(allowed))
    return ApiError(400, f"{field}: {message}", [detail])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses."""
    return {status: {"model": ErrorAnswer, "description": MEANINGS[status]} for status in statuses}


@dataclass(frozen=True)
class ErrorFormat:
    """How errors are written under the paths that begin with `prefix`.

    `respond` writes one. `of_invalid` makes the error for what pydantic found in a request: `(request, errors)`.
    """

    prefix: str
    respond: Callable[[Request, ApiError], Response]
    of_invalid: Callable[[Request, Sequence[Any]], ApiError]


def _json(_: Request, error: ApiError) -> Response:
    answer = ErrorAnswer(code=error.code, message=error.message, details=error.details)
    return JSONResponse(answer.model_dump(exclude_none=True), error.status, error.headers)


def _known_parameters(request: Request) -> list[str]:
    models = [field.field_info.annotation for field in request.scope["route"].dependant.query_params]
    return [name for model in models for name in model.model_fields]


def _detail_of(error: dict[str, Any], request: Request) -> list[ErrorDetail]:
    context = error.get("ctx", {})
    if "messages" in context:
        return [ErrorDetail(field=name, message=message) for name, message in context["messages"].items()]
    field = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "extra_forbidden" and error["loc"][0] == "body":
        return [ErrorDetail(field=field, message="is not a field of this body")]
    if error["type"] == "extra_forbidden":
        known = _known_parameters(request)
        return [ErrorDetail(field=field, message="is not a parameter of this endpoint", allowed=known)]
    allowed = re.findall(r"'([^']*)'", context["expected"]) if error["type"] == "enum" else None
    return [ErrorDetail(field=field, message=error["msg"], allowed=allowed)]


def _as_sent(detail: ErrorDetail, request: Request) -> ErrorDetail:
    """With the name that the client gave the parameter (`api.parameters.QueryParameters`)."""
    sent = to_camel(detail.field)
    is_other = sent in request.query_params and detail.field not in request.query_params
    return detail.model_copy(update={"field": sent}) if is_other else detail


def invalid_parameters(request: Request, errors: Sequence[Any]) -> ApiError:
    """For parameters of query and path. Bodies of events never get here: the event publisher judges them."""
    details = [_as_sent(detail, request) for item in errors for detail in _detail_of(item, request)]
    return ApiError(400, "; ".join(f"{detail.field}: {detail.message}" for detail in details), details)


DEFAULT_FORMAT = ErrorFormat("/", _json, invalid_parameters)


def _format_of(request: Request) -> ErrorFormat:
    formats: tuple[ErrorFormat, ...] = request.app.state.error_formats
    return next((each for each in formats if request.url.path.startswith(each.prefix)), DEFAULT_FORMAT)


def _respond(request: Request, error: ApiError) -> Response:
    return _format_of(request).respond(request, error)


TOO_EXPENSIVE = (
    503,
    "resource_exhausted",
    "The query needs more than it may use: narrow the time range, or ask for smaller pages.",
)
NO_SCHEMA = (503, "unavailable", "ClickHouse does not have the tables yet: run `insights migrate`.")
BY_CLICKHOUSE_CODE = {
    159: (504, "deadline_exceeded", "The query ran into its time limit; narrow the time range or add filters."),
    158: TOO_EXPENSIVE,
    241: TOO_EXPENSIVE,
    307: TOO_EXPENSIVE,
    396: TOO_EXPENSIVE,
    **dict.fromkeys(NOT_MIGRATED_CODES, NO_SCHEMA),
}


def _of_http(error: HTTPException) -> ApiError:
    code = CODES.get(error.status_code, HTTPStatus(error.status_code).name.lower())
    return ApiError(error.status_code, error.detail, code=code, headers=dict(error.headers or {}))


def _of_warehouse(request: Request, error: Exception) -> ApiError:
    cause = error if isinstance(error, DatabaseError) else error.__cause__
    code = cause.code if isinstance(cause, DatabaseError) else None
    if code in BY_CLICKHOUSE_CODE:
        status, word, message = BY_CLICKHOUSE_CODE[code]
        return ApiError(status, message, code=word)
    if isinstance(error, WarehouseUnavailableError):
        log.warning("clickhouse is away", path=request.url.path, error=str(error))
        return ApiError(503, "ClickHouse does not answer; try again later.")
    return _of_fault(request, error)


NOT_IN_TIME = "The request was not answered in time; a narrower question, or a faster connection, helps."


def _of_fault(request: Request, error: Exception) -> ApiError:
    log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return ApiError(500, "The request could not be answered; the fault is in the log of the service.")


def api_error_of(request: Request, error: Exception) -> ApiError:
    """What the client is told about `error`. A fault of this service is logged."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _format_of(request).of_invalid(request, error.errors())
        case HTTPException():
            return _of_http(error)
        case WarehouseUnavailableError() | DatabaseError():
            return _of_warehouse(request, error)
        case ClientDisconnect():
            # Not a fault, and the answer reaches nobody.
            return ApiError(400, "The connection closed before the body was complete.")
        case _:
            return _of_fault(request, error)


def _on_error(request: Request, error: Exception) -> Response:
    return _respond(request, api_error_of(request, error))


def on_fault(request: Request, error: Exception) -> Response:
    return _respond(request, _of_fault(request, error))


def on_timeout(request: Request) -> Response:
    return _respond(request, ApiError(504, NOT_IN_TIME))


def install(app: FastAPI, *formats: ErrorFormat) -> None:
    """Answer errors of `app` in the first of `formats` whose prefix the path has, else as JSON of the default one.

    Other exceptions are answered by the outermost middleware (`on_fault`).
    """
    app.state.error_formats = formats
    for kind in (
        ApiError,
        RequestValidationError,
        HTTPException,
        WarehouseUnavailableError,
        DatabaseError,
        ClientDisconnect,
    ):
        app.exception_handler(kind)(_on_error)
