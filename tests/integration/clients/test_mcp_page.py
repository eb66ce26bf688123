"""What docs/clients.md shows of MCP runs against a running API, and names the tools that there are."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from api.app import create_app
from api.mcp.catalogue import BY_NAME
from tests.support.api import KEY, filled_warehouse, settings
from tests.support.checkout import ROOT
from tests.support.rows import random_rows
from tests.support.running_api import running_api

SECTION = (ROOT / "docs/clients.md").read_text().partition("\n## MCP\n")[2].partition("\n## ")[0]
ROWS = random_rows(seed=31, count=60)


def shown(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def environment(engine_url: str) -> Iterator[dict[str, str]]:
    with (
        filled_warehouse(engine_url, ROWS) as warehouse,
        running_api(create_app(settings(), warehouse)) as url,
    ):
        yield {**os.environ, "INSIGHTS_API_URL": url, "INSIGHTS_API_KEY": KEY}


def test_the_program_prints_the_requests_that_failed(environment: dict[str, str]) -> None:
    [program] = shown("python")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    failed = sorted(row["request_id"] for row in ROWS if row["status"].lower() == "error")
    assert 0 < len(failed) <= 25
    printed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("2026-")]
    assert sorted(printed) == failed


def test_the_command_prints_what_each_model_costs(environment: dict[str, str]) -> None:
    [command] = shown("sh")
    done = subprocess.run(["bash", "-ec", command], env=environment, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)["result"]["structuredContent"]
    cost = sum((row["cost"] for row in ROWS if row["cost"] is not None), Decimal(0))
    assert Decimal(told["total"]["cost"]) == cost
    assert sum(Decimal(row["cost"]) for row in told["rows"]) == cost


async def test_the_configurations_are_those_of_a_server_that_answers(environment: dict[str, str]) -> None:
    over_http, as_command = (json.loads(text)["mcpServers"]["router-insights"] for text in shown("json"))
    assert over_http["url"] == f"{as_command['env']['INSIGHTS_API_URL']}/mcp"
    assert set(as_command["env"]) == {"INSIGHTS_API_URL", "INSIGHTS_API_KEY"}
    assert as_command["command"] == "insights"
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "cli.main", *as_command["args"]], env=environment
    )
    async with Client(parameters) as client:
        named = re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE)
        assert named == list(BY_NAME) == [tool.name for tool in (await client.list_tools()).tools]
