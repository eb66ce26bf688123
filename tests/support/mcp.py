"""The tools of the Model Context Protocol, asked as its HTTP transport does, for clients in the API's process."""

import json
from typing import Any

from starlette.testclient import TestClient

PATH = "/mcp"
HEADERS = {"Accept": "application/json, text/event-stream"}
# What REST would have answered, by the code of an error.
STATUSES = {
    "invalid_argument": 400,
    "forbidden": 403,
    "not_found": 404,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,
    "resource_exhausted": 503,
    "deadline_exceeded": 504,
}


def post(client: TestClient, method: str, parameters: dict[str, Any], **headers: str) -> Any:
    """The HTTP response to one message."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    return client.post(PATH, json=message, headers={**HEADERS, **headers})


def call(client: TestClient, tool: str, arguments: dict[str, Any]) -> tuple[int, Any]:
    """What a tool answers, and the status that REST would have: the data of an answer, or of an error."""
    response = post(client, "tools/call", {"name": tool, "arguments": arguments})
    body = response.json()
    if "error" in body:
        return response.status_code, body["error"]["data"]
    result = body["result"]
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    content = result["structuredContent"]
    return (STATUSES[content["code"]] if result["isError"] else response.status_code), content


def answer(client: TestClient, tool: str, **arguments: Any) -> Any:
    """The data of a successful answer."""
    status, content = call(client, tool, arguments)
    assert status == 200, content
    return content
