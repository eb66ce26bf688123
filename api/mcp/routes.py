"""The endpoint of the Model Context Protocol: streamable HTTP without sessions, answered with JSON."""

import asyncio
from importlib import import_module

from fastapi import APIRouter, Depends, Request, Response

from api.errors import ApiError
from api.mcp.errors import PATH
from api.security.reading import AppReading

# The protocol describes its tools itself; the OpenAPI document has the REST routes.
router = APIRouter(include_in_schema=False)

# What a page of an allowed origin sends beside the headers of the REST routes.
HEADERS = ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")


async def check_origin(request: Request) -> None:
    """Raises ApiError 403 for a web page of an origin that INSIGHTS_CORS_ORIGINS does not name.

    A browser sends the origin with every POST, also of a page whose name was made to resolve to this machine (DNS
    rebinding). So the Host header needs no list of names, and proxies may call the service what they like.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.rstrip("/") not in request.app.state.origins:
        raise ApiError(
            403, f"Web pages of {origin[:200]} may not ask here; INSIGHTS_CORS_ORIGINS names those that may."
        )


@router.post(PATH, dependencies=[Depends(check_origin)])
async def mcp(request: Request, reading: AppReading) -> Response:
    protocol = await asyncio.to_thread(import_module, "api.mcp.protocol")
    # Here, where a body that is too large is an error of the door.
    exchange: Response = protocol.Exchange(request, await request.body(), reading)
    return exchange
