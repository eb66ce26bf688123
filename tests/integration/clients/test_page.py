"""What docs/clients.md shows of Connect: the command runs, the programs are those that `make clients` runs."""

import json
import os
import re
import subprocess

import httpx2
import pytest

from api.app import create_app
from tests.support.api import KEY, filled_warehouse, settings
from tests.support.checkout import ROOT
from tests.support.connect import as_proto_json
from tests.support.rows import random_rows
from tests.support.running_api import running_api

SECTION = (ROOT / "docs/clients.md").read_text().partition("\n## Connect, Go, TypeScript\n")[2].partition("\n## ")[0]
CLIENTS = ROOT / "clients"


def shown(language: str) -> str:
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    return str(text)


def test_the_command_answers_what_rest_answers(engine_url: str) -> None:
    rows = random_rows(seed=17, count=60)
    with filled_warehouse(engine_url, rows) as warehouse, running_api(create_app(settings(), warehouse)) as address:
        environment = {**os.environ, "INSIGHTS_API_URL": address, "INSIGHTS_API_KEY": KEY}
        done = subprocess.run(["bash", "-c", shown("sh")], env=environment, capture_output=True, text=True, check=True)
        rest = httpx2.get(
            f"{address}/v1/request-logs", params={"status": "error"}, headers={"Authorization": f"Bearer {KEY}"}
        )
    answer = as_proto_json("QueryRequestLogsResponse", json.loads(done.stdout))
    assert answer == as_proto_json("QueryRequestLogsResponse", rest.json())
    assert answer["logs"]


@pytest.mark.parametrize(
    ("language", "example"), [("go", "go/examples/failures/main.go"), ("ts", "typescript/examples/failures.ts")]
)
def test_the_programs_are_the_examples_that_are_run(language: str, example: str) -> None:
    assert shown(language) == (CLIENTS / example).read_text()


def test_the_versions_are_those_that_are_pinned() -> None:
    told = dict(re.findall(r"^\| `(\S+)` \| (\S+) \|$", SECTION, re.MULTILINE))
    modules = re.findall(r"^\t(\S+) v(\S+)$", (CLIENTS / "go/go.mod").read_text(), re.MULTILINE)
    locked = json.loads((CLIENTS / "typescript/package-lock.json").read_text())["packages"]
    pinned = {**dict(modules), **{name.removeprefix("node_modules/"): each["version"] for name, each in locked.items()}}
    assert told == {name: pinned[name] for name in told}
    assert len(told) == 6
