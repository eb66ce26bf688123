"""The application of the library, asked without a server."""

import json
from typing import Any

import pytest
from fastapi import Request

from api.connect.methods import METHODS
from api.connect.protocol import Context, MethodsApplication, respond


def request(media_type: str = "application/json") -> Request:
    headers = [(b"content-type", media_type.encode()), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": METHODS[0].path, "query_string": b"", "headers": headers}
    return Request(scope)


def test_an_answer_has_the_status_and_headers_of_the_protocol() -> None:
    def answer(*_: Any) -> Any:
        return METHODS[0].answered(next_page_token="t")

    response = respond(request(), b"{}", MethodsApplication(answer))
    assert (response.status_code, json.loads(bytes(response.body))) == (200, {"nextPageToken": "t"})
    assert response.headers["content-type"] == "application/json"


def test_an_answer_that_cannot_be_written_is_a_fault_that_is_seen() -> None:
    """The library would tell the client what went wrong inside, and nobody else."""

    def no_message(method: Any, asked: Any, context: Context) -> Any:
        return "no message"

    with pytest.raises(RuntimeError, match="has no attribute 'to_json'"):
        respond(request(), b"{}", MethodsApplication(no_message))
