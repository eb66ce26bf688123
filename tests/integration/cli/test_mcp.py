"""`insights mcp` as a client starts it: the tools of a running API on standard input and output."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from api.app import create_app
from api.mcp.catalogue import BY_NAME, INSTRUCTIONS
from tests.support.api import KEY, filled_warehouse, settings
from tests.support.rows import random_rows
from tests.support.running_api import running_api

COMMAND = (sys.executable, "-m", "cli.main", "mcp")


@pytest.fixture(scope="module")
def url(engine_url: str) -> Iterator[str]:
    with (
        filled_warehouse(engine_url, random_rows(seed=7, count=50)) as warehouse,
        running_api(create_app(settings(), warehouse)) as url,
    ):
        yield url


def client_of(url: str, mode: Any) -> Client:
    env = {**os.environ, "INSIGHTS_API_URL": url, "INSIGHTS_API_KEY": KEY}
    return Client(StdioServerParameters(command=COMMAND[0], args=list(COMMAND[1:]), env=env), mode=mode)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tools_of_the_api_answer_on_standard_output(url: str, mode: str) -> None:
    async with client_of(url, mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == list(BY_NAME)
        assert client.instructions == INSTRUCTIONS
        told = await client.call_tool("aggregate", {"metrics": ["requests"], "period": "2026-01-01/2026-03-01"})
        assert (told.is_error, told.structured_content["total"]) == (False, {"requests": 50})
        refused = await client.call_tool("aggregate", {"metrics": ["costs"]})
        assert refused.is_error
        assert refused.structured_content["details"][0]["field"] == "metrics[0]"
        with pytest.raises(MCPError, match="no tool 'nothing'; allowed: describe_data"):
            await client.call_tool("nothing", {})


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"INSIGHTS_API_KEY": "wrong"}, "does not serve MCP: The key is not known."),
        ({"INSIGHTS_API_KEY": ""}, "give --api-key, or set INSIGHTS_API_KEY"),
        ({"INSIGHTS_API_URL": ""}, "no API is named: give --api-url and --api-key"),
        ({"INSIGHTS_API_URL": "http://127.0.0.1:9"}, "the API at http://127.0.0.1:9 does not serve MCP"),
        ({"INSIGHTS_API_URL": "nonsense"}, "the API at nonsense does not serve MCP"),
    ],
)
def test_it_ends_with_a_sentence_when_the_api_cannot_be_asked(url: str, changed: dict[str, str], sentence: str) -> None:
    env = {**os.environ, "INSIGHTS_API_URL": url, "INSIGHTS_API_KEY": KEY, **changed}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("insights: ")
    assert sentence in line


def test_it_ends_when_its_input_does(url: str) -> None:
    env = {**os.environ, "INSIGHTS_API_URL": url, "INSIGHTS_API_KEY": KEY}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
