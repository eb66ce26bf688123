"""The error bodies of the paths under `/api/public/v2`: `{"success": false, "message": ...}`."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from api.errors import ApiError, ErrorFormat

PREFIX = "/api/public/v2/"
MEANINGS = {
    400: "The body is understood but means nothing: the message names the path of the value and what is allowed.",
    401: "The key is missing or wrong.",
    403: "The key may not ask this.",
    413: "The body is larger than 1 MiB.",
    422: "The body has a wrong shape or type, or an unknown property; the message names its path.",
    429: "Too many requests with this key, in a time or at once; `Retry-After` says in how many seconds to try again.",
    500: "A fault of this service.",
    503: "ClickHouse cannot serve right now, too many requests are under way (`Retry-After`), or the query needs more"
    " than it may use.",
    504: "The query ran into its time limit; a narrower time range helps.",
}


class AnalyticsError(BaseModel):
    """Whatever goes wrong under /api/public/v2 is answered so."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "success": False,
                    "message": "filter_group.filters[2].operator: gt is no operator of engine; allowed: is, is_not, in,"
                    " not_in",
                }
            ]
        }
    )

    success: bool = Field(False, description="Always false.")
    message: str = Field(description="A sentence for people; it names the path of the wrong value.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses."""
    return {status: {"model": AnalyticsError, "description": MEANINGS[status]} for status in statuses}


def path_of(location: Iterable[Any], at: str = "") -> str:
    """`("filter_group", "filters", 2, "operator")` as `filter_group.filters[2].operator`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not str(part).startswith("<"):
            path += f".{part}"
    if at and not at.startswith((".", "[")):
        at = f".{at}"
    return (path + at).removeprefix(".")


def describe(errors: Iterable[Any]) -> tuple[int, str]:
    """Status and message for what pydantic found in a body: 422 if any of it is a matter of shape, else 400."""
    status, sentences = 400, []
    for error in errors:
        location = () if error["type"] == "json_invalid" else error["loc"][1:]
        path = path_of(location, error.get("ctx", {}).get("at", ""))
        sentences.append(f"{path}: {_sentence(error)}" if path else _sentence(error))
        if error["type"] != "semantic":
            status = 422
    return status, "; ".join(sentences)


def _sentence(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such property"
    if error["type"] == "json_invalid":
        return f"the body is not valid JSON ({error.get('ctx', {}).get('error', 'it cannot be read')})"
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return "a JSON object is needed as body"
    return str(error["msg"])


def _json(_: Request, error: ApiError) -> Response:
    return JSONResponse(AnalyticsError(message=error.message).model_dump(), error.status, error.headers)


def _of_invalid(_: Request, errors: Sequence[Any]) -> ApiError:
    return ApiError(*describe(errors))


FORMAT = ErrorFormat(PREFIX, _json, _of_invalid)
