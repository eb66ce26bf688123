"""Every piece of Python in the client's README and in docs/clients.md runs, as a program of its own, against a running
API."""

import os
import re
import subprocess
import sys

import pytest

from router_insights import Client, RequestEvent
from tests.integration.clients.python.conftest import Running
from tests.support.api import KEY
from tests.support.checkout import ROOT
from tests.support.kafka import has_idempotence, read_topic

PAGE = (ROOT / "clients/python/README.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ALL = BLOCK.findall(PAGE)
EMITTING = [program for program in ALL if "EventEmitter" in program]
PROGRAMS = [program for program in ALL if program not in EMITTING]


def run(program: str, url: str, **more: str) -> str:
    environment = {**os.environ, "INSIGHTS_API_URL": url, "INSIGHTS_API_KEY": KEY, **more}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_the_page_of_clients_shows_which_requests_failed(running: Running) -> None:
    page = (ROOT / "docs/clients.md").read_text()
    [program] = BLOCK.findall(page[page.index("\n## Python\n") :].split("\n## ", 2)[1])
    failed = [row for row in running.rows if row["status"] == "error"]
    printed = run(program, running.url)
    for row in failed:
        assert f"{row['timestamp']} {row['model_name']} {row['user_id']} {row['status_code']}\n" in printed


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_readme_runs(running: Running, program: str) -> None:
    assert run(program, running.url)


async def test_the_program_that_emits_puts_its_event_on_the_topic(broker: str, topic: str) -> None:
    (program,) = EMITTING
    if not has_idempotence():
        # The embedded broker knows no idempotent producers.
        program = program.replace('os.environ["KAFKA"]', 'os.environ["KAFKA"], enable_idempotence=False')
    run(program, "", KAFKA=broker, TOPIC=topic)
    [record] = await read_topic(broker, topic)
    event = RequestEvent.model_validate_json(record.value)
    assert (record.key, event.request_id, event.input_tokens) == (b"req-1", "req-1", 1200)


def test_the_first_program_has_ten_lines_and_says_who_spent_what(running: Running) -> None:
    first = PROGRAMS[0]
    assert len(first.strip().splitlines()) <= 10
    lines = run(first, running.url).splitlines()
    cost = sum(row["cost"] for row in running.rows if row["cost"] is not None)
    assert lines[0].startswith(f"{cost:.2f} dollars")
    failed = sum(row["status"] == "error" for row in running.rows)
    assert sum(line.startswith("2026-") for line in lines) == failed > 0


def test_the_readme_names_every_method() -> None:
    client = Client("http://localhost", KEY)
    resources = [one for name, one in vars(client).items() if not name.startswith("_")]
    methods = {name for one in resources for name in dir(one) if not name.startswith("_")}
    assert methods
    assert {name for name in methods if f"`{name}`" not in PAGE} == set()
