"""The rules of CONTRIBUTING.md that can be read off the source."""

import ast
from collections import Counter

from tests.support.checkout import ROOT

SOURCES = [
    path
    for folder in ("aggregator", "api", "cli", "deploy", "ingest")
    for path in (ROOT / folder).rglob("*.py")
    if "generated" not in path.parts
]


def test_no_module_has_more_than_400_lines() -> None:
    assert len(SOURCES) > 150
    assert [path.name for path in SOURCES if len(path.read_text().splitlines()) > 400] == []


def test_no_class_name_exists_twice() -> None:
    trees = [ast.parse(path.read_text()) for path in SOURCES]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []
