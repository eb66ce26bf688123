"""Errors in the forms of MCP: what goes wrong before a tool is called, and what a tool answers with."""

import re
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError

from api.analytics.errors import path_of
from api.errors import ApiError, ErrorDetail, ErrorFormat, invalid_parameters

PATH = "/mcp"
# JSON-RPC leaves the codes from -32099 to -32000 to servers.
SERVER_ERROR, INVALID_REQUEST = -32000, -32600


def error_data(error: ApiError) -> dict[str, Any]:
    """What programs read of an error."""
    seconds = error.retry_after_seconds
    return {
        "code": error.code,
        "message": error.message,
        "details": [detail.model_dump(exclude_none=True) for detail in error.details],
        **({} if seconds is None else {"retry_after_seconds": seconds}),
    }


def _respond(_: Request, error: ApiError) -> Response:
    """An error of JSON-RPC: clients show its message, whatever the HTTP status."""
    code = INVALID_REQUEST if error.status in (400, 413, 415) else SERVER_ERROR
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": error.message, "data": error_data(error)}}
    return JSONResponse(body, error.status, error.headers)


FORMAT = ErrorFormat(PATH, _respond, invalid_parameters)


def invalid_arguments(arguments: type[BaseModel], error: ValidationError) -> ApiError:
    """ApiError 400 that names each wrong argument, and lists what is allowed where that can be listed."""
    details = [_detail(arguments, each) for each in error.errors(include_url=False, include_input=False)]
    return ApiError(400, "; ".join(f"{detail.field}: {detail.message}" for detail in details), details)


def _detail(arguments: type[BaseModel], error: Any) -> ErrorDetail:
    context = error.get("ctx", {})
    field = path_of(error["loc"], context.get("at", ""))
    if error["type"] == "extra_forbidden":
        allowed = list(arguments.model_fields) if len(error["loc"]) == 1 else None
        return ErrorDetail(field=field, message="there is no such argument", allowed=allowed)
    allowed = re.findall(r"'([^']*)'", context["expected"]) if error["type"] == "enum" else None
    return ErrorDetail(field=field, message=error["msg"], allowed=allowed)
