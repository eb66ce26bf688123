"""The only files that may use private members of aiokafka, and which ones: a new version of it may change any of them.

- group_coordinator.py: commits and reads of offsets that are fenced by a member, and the id of a topic.
- event_emitter.py: closing a producer whose `stop` would wait for ever for batches that it cannot deliver.
- topics/admin.py: requests about rights, which aiokafka's admin client has no methods for.
"""

import ast

import pytest

from tests.support.checkout import ROOT

MEMBERS = {
    "clients/python/router_insights/emitter/event_emitter.py": {"_closed", "_sender"},
    "ingest/consumer/group_coordinator.py": {"_client", "_coordinator", "_send_req"},
    "ingest/topics/admin.py": {"_send_request", "_send_to_controller"},
}
PACKAGES = ("aggregator", "api", "cli", "clients/python/router_insights", "ingest")


def private_members(source: str) -> set[str]:
    """Private members of other objects than `self`, in a module that imports aiokafka."""
    if "aiokafka" not in source:
        return set()
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_private_members_of_aiokafka_are_used_in_three_files_only(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): members
        for path in (ROOT / package).rglob("*.py")
        if (members := private_members(path.read_text()))
    }
    assert found == {path: members for path, members in MEMBERS.items() if path.startswith(f"{package}/")}
