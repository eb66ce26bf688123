"""The SDK of MCP takes most of a second to import, and is imported by whoever needs it first."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("modules", ["api.app", "cli.main", "cli.main, cli.commands.mcp", "cli.commands.api"])
def test_what_starts_does_not_import_the_sdk(modules: str) -> None:
    code = (
        f"import sys, {modules}; print([name for name in ('mcp', 'mcp_types', 'sse_starlette') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "[]\n"
