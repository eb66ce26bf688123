"""The commands by name: each has its module, and shows what the list says of it."""

import pytest
from typer.testing import CliRunner

from cli.main import COMMANDS, app
from tests.support.checkout import ROOT


def test_each_command_is_a_module() -> None:
    modules = {path.stem.replace("_", "-") for path in (ROOT / "cli/commands").glob("[!_]*.py")}
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_of_itself_what_the_list_says_of_it(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert COMMANDS[name] in " ".join(shown.output.split())
