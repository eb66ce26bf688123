"""The workflow of a hosted repository is valid and names only what there is. `actionlint` checks more."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.support.checkout import ROOT

TEXT = (ROOT / ".github/workflows/ci.yml").read_text()
# YAML takes the key `on` for a boolean.
WORKFLOW: dict[str, Any] = yaml.load(TEXT, yaml.BaseLoader)
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_the_workflow_is_valid() -> None:
    # Of check-jsonschema only the schema is used: its command needs another version of click than faust.
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    schema = Path(package.origin).parent / "builtin_schemas/vendor/github-workflows.json"
    document = yaml.safe_load(TEXT.replace("\non:\n", "\n'on':\n"))
    jsonschema.Draft7Validator(json.loads(schema.read_text())).validate(document)


def test_every_job_ends_and_every_action_has_a_version() -> None:
    assert all(int(job["timeout-minutes"]) <= 90 for job in WORKFLOW["jobs"].values())
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", each) for each in used)


def test_what_the_steps_run_is_there() -> None:
    lines = "\n".join(step["run"] for step in STEPS if "run" in step).replace("\\\n", " ")
    files = [word for word in shlex.split(lines) if re.fullmatch(r"(tests|\.ci)/[\w/.]+", word)]
    modules = re.findall(r"-m (tests[\w.]+)", lines)
    assert ".ci/run" in files
    assert len(files) > 3
    assert modules
    for file in files:
        assert (ROOT / file).exists(), file
    for module in modules:
        assert find_spec(module), module
