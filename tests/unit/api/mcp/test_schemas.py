"""What a client pays for the tools before it asks anything, and what their schemas say."""

import json
import warnings

import pytest

from api.mcp.catalogue import INSTRUCTIONS, TOOLS, Tool
from api.mcp.protocol import LISTING

MAX_TOKENS = 4_000
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of how the package opens its own vocabulary
    from bpe_openai import get_encoding

    TOKENS = get_encoding("o200k_base")


def test_the_tools_together_take_less_than_four_thousand_tokens() -> None:
    listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in LISTING]
    assert len(listed) == len(TOOLS) == 7
    text = json.dumps(listed, separators=(",", ":"), ensure_ascii=False) + INSTRUCTIONS
    # Of the tokenizer of GPT-4o and later; a quarter of the bytes for those that are not public.
    assert len(TOKENS.encode(text)) < MAX_TOKENS
    assert len(text.encode()) / 4 < MAX_TOKENS


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_schema_is_an_object_that_takes_nothing_else_and_describes_what_is_not_plain(tool: Tool) -> None:
    schema = tool.schema
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    assert set(schema["properties"]) == set(tool.arguments.model_fields)
    assert set(schema.get("required", ())) == {
        name for name, field in tool.arguments.model_fields.items() if field.is_required()
    }
    assert "$ref" not in json.dumps(schema)
    assert "null" not in json.dumps(schema)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_says_that_it_only_reads(tool: Tool) -> None:
    [listed] = [each for each in LISTING if each.name == tool.name]
    assert listed.annotations is not None
    assert (listed.annotations.read_only_hint, listed.annotations.destructive_hint) == (True, False)
