"""`insights mcp`: the tools of a running API, for programs that start MCP servers as commands."""

import asyncio

import typer

from cli.api_connection import DEFAULT_DIRECTORY, ApiKey, ApiUrl, DataDirectory, address_and_key

app = typer.Typer(add_completion=False)


@app.command()
def mcp(api_url: ApiUrl = None, api_key: ApiKey = None, data_dir: DataDirectory = DEFAULT_DIRECTORY) -> None:
    url, key = address_and_key(api_url, api_key, data_dir)
    from cli.adapters.mcp_forwarding import forward

    asyncio.run(forward(url, key))
