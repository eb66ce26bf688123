"""The clients in Go and TypeScript: built, checked, and their own tests run against the API on a port.

`make clients` runs these. They need Go, Node, and the packages that both fetch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from api.security.keyring import KeyRing
from api.security.permissions import Caller, Restriction, Scope
from tests.support.api import KEY, filled_warehouse, settings
from tests.support.checkout import ROOT
from tests.support.rows import USERS, random_rows
from tests.support.running_api import running_api

pytestmark = pytest.mark.skipif(not os.environ.get("INSIGHTS_TEST_CLIENTS"), reason="run by `make clients`")

GO, TYPESCRIPT = ROOT / "clients/go", ROOT / "clients/typescript"
CUSTOMER, CUSTOMER_KEY = USERS[3], "ak-customer"
KEYS = {
    KEY: Caller("everybody", frozenset({Scope.READ})),
    CUSTOMER_KEY: Caller("customer", frozenset({Scope.READ}), Restriction(user_id=CUSTOMER)),
}


@pytest.fixture(scope="module")
def environment(engine_url: str) -> Iterator[dict[str, str]]:
    """Says where the API is; the OpenAPI document is where the TypeScript client is generated from it."""
    with filled_warehouse(engine_url, random_rows(seed=91, count=200)) as warehouse:
        app = create_app(settings(), warehouse)
        app.state.keys = KeyRing(KEYS)
        (TYPESCRIPT / "openapi.json").write_text(json.dumps(app.openapi()))
        with running_api(app) as address:
            yield {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "INSIGHTS_API_URL": address,
                "INSIGHTS_API_KEY": KEY,
                "INSIGHTS_CUSTOMER": CUSTOMER,
                "INSIGHTS_CUSTOMER_KEY": CUSTOMER_KEY,
            }


def run(folder: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def code_of(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(folder.rglob("*.go"))}


def test_the_go_client_is_what_the_proto_generates(environment: dict[str, str]) -> None:
    before = code_of(GO / "insightsv1")
    run(GO, environment, "buf", "generate")
    assert code_of(GO / "insightsv1") == before
    assert len(before) == 2


def test_the_go_client_is_formatted_vetted_and_tidy(environment: dict[str, str]) -> None:
    assert run(GO, environment, "gofmt", "-l", "client.go", "client_test.go", "examples") == ""
    run(GO, environment, "go", "vet", "./...")
    assert run(GO, environment, "go", "mod", "tidy", "-diff") == ""


def test_the_go_client_gets_the_answers_of_rest(environment: dict[str, str]) -> None:
    run(GO, environment, "go", "test", "-count=1", "./...")


def test_the_typescript_client_gets_the_answers_of_rest(environment: dict[str, str]) -> None:
    run(TYPESCRIPT, environment, "npm", "ci", "--no-audit", "--no-fund")
    for script in ("generate", "check", "build", "test"):
        run(TYPESCRIPT, environment, "npm", "run", script)


def test_the_typescript_package_holds_what_it_exports(environment: dict[str, str]) -> None:
    [package] = json.loads(run(TYPESCRIPT, environment, "npm", "pack", "--dry-run", "--json"))
    files = {each["path"] for each in package["files"]}
    assert {"package.json", "README.md", "dist/index.js", "dist/index.d.ts"} <= files
    assert {path.partition("/")[0] for path in files} == {"package.json", "README.md", "dist"}
