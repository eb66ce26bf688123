"""Every command that the documents name is one that the command line takes, and every container one that there is."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from tests.support.checkout import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# What stands for something of the reader's own.
PLACEHOLDERS = {"FILE": str(ROOT / "README.md"), "TIME": "2026-11-01", "NAME": "a-name", "ID": "a-request"}
# What the image has elsewhere than the repository.
COPIED = re.compile(r"^COPY (deploy/\S+) (/\S+)$", re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines_of_blocks() -> Iterator[tuple[str, str]]:
    """(page, command) of each block of shell, a line that goes on taken together."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                yield page.name, line


def spans() -> Iterator[tuple[str, str]]:
    """(page, code) of each piece of code within a sentence, also over a line's end."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`([^`]+)`", text):
            yield page.name, " ".join(span.split())


def words(line: str) -> list[str]:
    """Of a command line, without its comment, without what is set for it and where its output goes."""
    found = shlex.split(line, comments=True)
    if ">" in found:
        del found[found.index(">") :]
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        found.pop(0)
    return found


def parse(arguments: list[str]) -> None:
    """Raises typer's errors for what the command line does not take. Nothing is run."""
    command = typer.main.get_command(app)
    context: Any = command.make_context("insights", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(rest), parent=context)


def filled(argument: str) -> str:
    return PLACEHOLDERS.get(argument, argument)


def insights_lines() -> list[Any]:
    found = {}
    for page, line in lines_of_blocks():
        given = words(line) if "insights" in line else []
        if given and given[0].rpartition("/")[2] == "insights":
            # What is in brackets may be left out; both ways are tried.
            found[f"{page}: {' '.join(given)}"] = [word.strip("[]") for word in given[1:]]
            found[f"{page}: {' '.join(given)} (short)"] = [word for word in given[1:] if not word.startswith("[")]
    return [pytest.param(arguments, id=name) for name, arguments in found.items()]


@pytest.mark.parametrize("arguments", insights_lines())
def test_a_line_of_a_block_is_a_command(arguments: list[str]) -> None:
    parse([filled(argument) for argument in arguments])


def commands_in_sentences() -> dict[str, list[str]]:
    found = {}
    for page, span in spans():
        if span.startswith("insights ") and "..." not in span:
            found[f"{page}: {span}"] = span.split()[1:]
    return found


@pytest.mark.parametrize(("name", "given"), commands_in_sentences().items(), ids=commands_in_sentences())
def test_a_command_in_a_sentence_exists_with_its_options(name: str, given: list[str]) -> None:
    """Such as `insights rollups verify|rebuild`, with or without their values."""
    path = [word for word in given if re.fullmatch(r"[a-z|-]+", word) and not word.startswith("-")]
    options = re.findall(r"--[a-z-]+", " ".join(given))
    for last in path[-1].split("|") if path else [""]:
        command: Any = typer.main.get_command(app)
        for step in [*path[:-1], last]:
            if hasattr(command, "commands"):
                assert step in command.commands, name
                _, command, _ = command.resolve_command(typer.Context(command), [step])
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(options) - {"--version"} <= known, name


def entrypoint() -> list[str]:
    found: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1])
    return found


def in_repository(argument: str) -> str:
    copied = {there: here for here, there in COPIED.findall((ROOT / "Dockerfile").read_text())}
    return str(ROOT / copied[argument]) if argument in copied else argument


def check_container(service: dict[str, Any], arguments: list[str]) -> None:
    """The image's ENTRYPOINT is kept, and what is given replaces the service's command (Compose: `run`)."""
    assert "entrypoint" not in service
    assert entrypoint() == ["insights"]
    parse([in_repository(argument) for argument in (arguments or service["command"])])


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service.get("build") == "."])
def test_a_container_runs_a_command(name: str) -> None:
    check_container(SERVICES[name], [])


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/kubernetes").glob("*.yaml")), ids=lambda path: path.name)
def test_a_pod_runs_a_command(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] in {"Deployment", "Job"}:
            for container in document["spec"]["template"]["spec"]["containers"]:
                assert "command" not in container
                parse(container["args"])


def compose_lines() -> list[Any]:
    found = [(page, line) for page, line in (*lines_of_blocks(), *spans()) if line.startswith("docker compose ")]
    return [pytest.param(words(line)[2:], id=f"{page}: {line}") for page, line in dict.fromkeys(found)]


def secrets_of(name: str, folder: Path) -> set[str]:
    """The files that a service finds under /run/secrets."""
    [volume] = [volume for volume in SERVICES[name]["volumes"] if ":/run/secrets:" in volume]
    return {path.name for path in (folder / volume.split(":")[0].removeprefix("secret-")).iterdir()}


@pytest.mark.parametrize("given", compose_lines())
def test_a_line_of_compose_names_what_there_is(given: list[str], tmp_path: Path) -> None:
    verb, *rest = given
    options = [word for word in rest if word.startswith("-")]
    match verb:
        case "up":
            assert set(options) <= {"--build", "--detach", "-d", "--scale"}
            assert {word.split("=")[0] for word in rest if "=" in word} <= set(SERVICES)
        case "run":
            flags = [*rest].index(next(word for word in rest if not word.startswith("-")))
            assert set(rest[:flags]) <= {"--rm", "--no-deps"}
            check_container(SERVICES[rest[flags]], rest[flags + 1 :])
        case "exec":
            service, program, path = rest
            assert program == "cat"
            subprocess.run([sys.executable, ROOT / "deploy/compose/make_secrets.py", tmp_path], check=True)
            assert path.removeprefix("/run/secrets/") in secrets_of(service, tmp_path)
        case _:
            raise AssertionError(f"docker compose {verb} is not checked")


def test_there_are_commands_to_check() -> None:
    assert len(insights_lines()) > 25
    assert len(commands_in_sentences()) > 25
    assert {case.values[0][0] for case in compose_lines()} == {"up", "run", "exec"}


@pytest.mark.parametrize("wrong", ["retention set --rows", "retention put", "retention set --days 3", "keys create"])
def test_a_mistake_would_be_seen(wrong: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|requires|missing") as caught:
        parse(wrong.split())
    assert type(caught.value).__name__ in {"NoSuchOption", "BadOptionUsage", "MissingParameter", "UsageError"}
