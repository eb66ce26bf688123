"""What the distribution of the Python client is made of: nothing of the server, nothing new, nothing heavy."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import router_insights
from tests.support.checkout import ROOT

PROJECT = ROOT / "clients/python"
MODULES = sorted((PROJECT / "router_insights").rglob("*.py"))
SERVER = {"aggregator", "api", "cli", "ingest"}
NAMES = {name for names in router_insights._MODULES.values() for name in names}


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_client_imports_nothing_of_the_server() -> None:
    assert len(MODULES) > 15
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in named} & SERVER, path


def test_importing_the_package_imports_nothing_but_pythons_own() -> None:
    script = """
import sys
before = set(sys.modules)
import router_insights
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
"""
    assert run(script).split() == ["router_insights"]


def test_asking_imports_neither_tables_nor_kafka() -> None:
    script = """
import sys, router_insights
router_insights.Client("http://localhost", "ak-1")
print(*sys.modules)
"""
    heavy = {"pyarrow", "pandas", "polars", "numpy", "google.protobuf", "aiokafka", "pydantic"}
    assert not heavy & set(run(script).split())


def test_every_name_can_be_imported_and_is_listed() -> None:
    assert set(router_insights.__all__) == NAMES
    for name in NAMES:
        assert getattr(router_insights, name).__name__ == name
    assert set(dir(router_insights)) >= NAMES
    with pytest.raises(AttributeError, match="has no attribute 'Colour'"):
        router_insights.Colour  # noqa: B018


def test_what_is_missing_for_the_emitter_is_named_with_what_to_install() -> None:
    for module in ("aiokafka", "pydantic"):
        script = f"""
import sys
sys.modules["{module}"] = None
try:
    from router_insights import SyncEventEmitter
except ImportError as error:
    print(error)
"""
        assert run(script).strip() == f"SyncEventEmitter needs {module}: pip install 'router-insights-client[kafka]'"


def test_type_checkers_see_every_name() -> None:
    [block] = [node for node in ast.parse(MODULES[0].read_text()).body if isinstance(node, ast.If)]
    seen = {
        node.module.removeprefix("router_insights."): {alias.name for alias in node.names}
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert seen == {module: set(names) for module, names in router_insights._MODULES.items()}


def test_the_rules_of_the_project_hold_here_too() -> None:
    assert [path.name for path in MODULES if len(path.read_text().splitlines()) > 400] == []
    classes = [
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert [name for name, count in Counter(classes).items() if count > 1] == []


def interpreters() -> list[str]:
    """This one, and every other Python from 3.10 to 3.14 on the path."""
    found = [_executable(f"python3.{minor}") for minor in range(10, 15) if minor != sys.version_info.minor]
    return [sys.executable, *filter(None, found)]


def _executable(name: str) -> str:
    """Where it really is, "" when it does not run."""
    try:
        asked = [name, "-c", "import sys; print(sys.executable)"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: Path(path).name)
def test_every_module_compiles_and_the_package_is_imported(interpreter: str) -> None:
    script = """
import pathlib, sys
for path in pathlib.Path("router_insights").rglob("*.py"):
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
import router_insights, router_insights.errors
print(router_insights.RateLimitedError.__name__)
"""
    done = subprocess.run(
        [interpreter, "-B", "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert (done.stdout.strip(), done.stderr) == ("RateLimitedError", "")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    )
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_is_small_and_has_the_package_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < 200_000
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "router_insights",
        wheel.name.rpartition("-py3")[0] + ".dist-info",
    }
    assert "router_insights/py.typed" in names
    assert {name for name in names if name.endswith(".py")} == {str(path.relative_to(PROJECT)) for path in MODULES}


def test_the_wheel_needs_little(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(name).decode()
    assert "Requires-Python: >=3.10" in metadata
    needed = [line for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE) if "extra ==" not in line]
    assert {re.split(r"[<>=;]", line)[0] for line in needed} == {"httpx", "httpx2", "msgspec", "tenacity"}
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not {"faust-streaming", "clickhouse-connect", "fastapi"} & {re.split(r"[\[<>=]", line)[0] for line in needed}
    assert len(needed) < len(server) / 4


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert router_insights.__version__ == project["version"] == server["version"]
