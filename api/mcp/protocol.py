"""The Model Context Protocol by its own SDK: one exchange over HTTP, which calls the tools.

Importing this takes the better part of a second, so the route imports it when it is first asked.
"""

import asyncio
import json
import logging
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ToolListing
from starlette.types import Message, Receive, Scope, Send

from api import errors
from api.mcp.catalogue import BY_NAME, INSTRUCTIONS, TOOLS, Tool
from api.mcp.context import ToolContext
from api.mcp.errors import error_data
from api.security.reader import Reader
from api.security.reading import Reading

# It logs each exchange, which the API does itself.
logging.getLogger("mcp").setLevel(logging.ERROR)
READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


def listed(tool: Tool) -> ToolListing:
    return ToolListing(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.schema,
        annotations=READ_ONLY,
    )


LISTING = [listed(tool) for tool in TOOLS]


class Exchange(Response):
    """One request of the protocol, whose body was read, and its answer, for one caller.

    Nothing of it outlives the request.
    """

    def __init__(self, request: Request, body: bytes, reading: Reading) -> None:
        super().__init__()
        self._request = request
        self._message = body
        self._reading = reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = [{"type": "http.request", "body": self._message, "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        manager = StreamableHTTPSessionManager(self._server, json_response=True, stateless=True)
        async with manager.run():
            await manager.handle_request(scope, receive_again, send)

    @cached_property
    def _server(self) -> Server[Any]:
        return Server(
            "router-insights",
            version=self._request.app.version,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def _list_tools(self, _: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=LISTING)

    async def _call_tool(self, _: Any, asked: CallToolRequestParams) -> CallToolResult:
        """Raises MCPError for a tool that there is not. What a tool refuses or cannot answer is a result."""
        tool = BY_NAME.get(asked.name)
        if tool is None:
            message = f"there is no tool {asked.name!r}; allowed: {', '.join(BY_NAME)}"
            raise MCPError(INVALID_PARAMS, message, {"allowed": list(BY_NAME)})
        now, loop = datetime.now(UTC), asyncio.get_running_loop()

        def answer(reader: Reader) -> dict[str, Any]:
            return tool.run(ToolContext(self._request, reader, now, loop), asked.arguments or {})

        try:
            return _result(await self._reading.run(answer))
        except Exception as error:
            return _result(error_data(errors.api_error_of(self._request, error)), is_error=True)


def _result(content: dict[str, Any], is_error: bool = False) -> CallToolResult:
    """As data, and as the same JSON in a text, for clients that read no data."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(text=text)], structured_content=content, is_error=is_error)
