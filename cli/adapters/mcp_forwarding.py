"""MCP between standard input and output and the endpoint `/mcp` of an API, which has the tools."""

import logging
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from aggregator.errors import InsightsError

# Longer than INSIGHTS_REQUEST_TIMEOUT_SECONDS by default: the API's own answer says more.
TIMEOUT_SECONDS = 90.0


class ForwardingError(InsightsError):
    """The API does not answer or refuses the key; the message says so."""


async def forward(url: str, api_key: str) -> None:
    """Serve the tools of the API at `url` on standard input and output, until input ends. Raises ForwardingError."""
    # Standard output is the protocol's; what its libraries log of errors is in the sentence at the end.
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    address = f"{url.rstrip('/')}/mcp"
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS) as http,
            Client(streamable_http_client(address, http_client=http)) as api,
            stdio_server() as (read, write),
        ):
            server = _server_of(api)
            await server.run(read, write, server.create_initialization_options())
    except* (MCPError, httpx2.HTTPError, httpx2.InvalidURL) as failed:
        raise ForwardingError(f"the API at {url} does not serve MCP: {_reason(failed)}") from failed


def _server_of(api: Client) -> Server[Any]:
    """A server with the tools of `api`, whose answers and errors are passed on as they are."""

    async def list_tools(_: Any, asked: PaginatedRequestParams | None) -> ListToolsResult:
        return await api.list_tools(cursor=asked.cursor if asked else None)

    async def call_tool(_: Any, asked: CallToolRequestParams) -> CallToolResult:
        return await api.call_tool(asked.name, asked.arguments)

    known = api.server_info
    return Server(
        "router-insights",
        version=known.version if known else "",
        instructions=api.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _reason(failed: BaseExceptionGroup[Any]) -> str:
    first: Any = failed
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first) or type(first).__name__
