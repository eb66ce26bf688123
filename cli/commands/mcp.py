"""`insights mcp`: the tools of a running API, for programs that start MCP servers as commands."""

import asyncio
import os
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def mcp(
    url: Annotated[
        str, typer.Option(envvar="INSIGHTS_API_URL", metavar="URL", help="Address of the API.")
    ] = "http://127.0.0.1:8080",
) -> None:
    # The key has no option: every user of a machine sees the arguments of its commands.
    from cli.adapters.mcp_forwarding import forward

    asyncio.run(forward(url, os.environ.get("INSIGHTS_API_KEY", "").strip()))
