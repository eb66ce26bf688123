"""Extracts the conversation (messages, answer, tool calls) from the bodies of a request: OpenAI chat and responses,
Anthropic, Gemini, Bedrock, or plain text. Any other JSON is searched as it is. Nothing here ever raises for a body.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from aggregator.clickhouse.sql import text_of
from ingest.transform.surrogates import without_lone_surrogates

# White space before JSON; stripping a long text to look at its first sign would copy it.
MAX_INDENT = 64
# Roles as other APIs call them.
ROLES = {"model": "assistant", "developer": "system"}
SYSTEM_KEYS = ("system", "instructions", "systemInstruction", "system_instruction")
MESSAGE_KEYS = ("messages", "input", "contents", "prompt")
# What holds text, or parts that do, in messages of any API.
PART_KEYS = (
    "text",
    "refusal",
    "content",
    "parts",
    "tool_calls",
    "output",
    "functionResponse",
    "toolResult",
    "response",
)
# A call is wrapped in one of these, or says that it is one.
CALL_KEYS = ("function", "function_call", "functionCall", "toolUse", "custom")
# What has none of these keys is no call.
CALL_MARKS = frozenset((*CALL_KEYS, "type"))
# Tuples, not sets: a `type` from outside may be anything, also what has no hash.
CALL_TYPES = ("function_call", "tool_use", "server_tool_use", "mcp_tool_use", "mcp_call", "custom_tool_call")
ARGUMENT_KEYS = ("arguments", "args", "input")
# The model's thoughts are not its answer.
SILENT_TYPES = ("thinking", "redacted_thinking", "reasoning")
ASSISTANT_TYPES = CALL_TYPES + SILENT_TYPES


class Message(NamedTuple):
    role: str
    text: str


class Call(NamedTuple):
    """A tool call. `arguments` is the JSON that was sent, or the text where it is none."""

    name: str
    arguments: Any


class Answer(NamedTuple):
    """The model's text and its tool calls. `document` is the JSON object that the answer is, if it is one."""

    text: str
    calls: tuple[Call, ...] = ()
    document: dict[str, Any] | None = None


def parse(text: str) -> Any:
    """The JSON object or array of a text, or the text itself."""
    if text[:1] not in ("{", "[") and text[:MAX_INDENT].lstrip()[:1] not in ("{", "["):
        return text
    try:
        return _decoded(text.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text


def _decoded(json_text: bytes) -> Any:
    """Raises msgspec.DecodeError and RecursionError."""
    try:
        return msgspec.json.decode(json_text)
    except msgspec.DecodeError:
        repaired = without_lone_surrogates(json_text)
        if repaired == json_text:
            raise
        return msgspec.json.decode(repaired)


def scalars(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar with its dotted path, indexes of arrays dropped; null is nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from scalars(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item, path)
    elif value is not None:
        yield path, text_of(value)


def lines(value: Any) -> str:
    """JSON as text to search in: a line `key: value` for each scalar."""
    return "\n".join(f"{path}: {text}" if path else text for path, text in scalars(value))


def asked(body: Any) -> list[Message]:
    """The messages of a request, in order; one of role "" for a body that is no conversation."""
    if not isinstance(body, dict):
        found = _messages(body) if isinstance(body, list) else []
        return found or ([Message("", body if isinstance(body, str) else lines(body))] if body else [])
    found = [message for key in SYSTEM_KEYS if key in body for message in _messages(body[key], "system")]
    key = next((key for key in MESSAGE_KEYS if key in body), None)
    if key is None and not found:
        return [Message("", lines(body))] if body else []
    return found + (_messages(body[key], "" if key == "prompt" else "user") if key else [])


def _messages(value: Any, role: str = "user") -> list[Message]:
    """`role` is of what names none."""
    messages: list[Message] = []
    parts: list[Any] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and ("role" in item or item.get("type") in ASSISTANT_TYPES):
            named = str(item.get("role", "assistant"))
            messages.append(Message(ROLES.get(named, named), _text(item)))
        elif isinstance(item, dict) and str(item.get("type", "")).endswith("_call_output"):
            messages.append(Message("tool", _text(item)))
        else:
            parts.append(item)
    if parts and (text := _text(parts)):
        messages.append(Message(role, text))
    return messages


def _text(value: Any) -> str:
    """A message's text; calls in it as lines."""
    pieces = [lines(_call_document(piece)) if isinstance(piece, Call) else piece for piece in _pieces(value)]
    return "\n".join([piece for piece in pieces if piece])


def _pieces(value: Any) -> list[str | Call]:
    """Texts and calls inside a message, a part of one, or a list of either."""
    pieces: list[str | Call] = []
    _add_pieces(value, pieces)
    return pieces


def _add_pieces(value: Any, pieces: list[str | Call]) -> None:
    """Calls itself alone: the deeper the bodies that it can follow to their end."""
    if isinstance(value, str):
        pieces.append(value)
    elif isinstance(value, list):
        for item in value:
            _add_pieces(item, pieces)
    elif isinstance(value, dict) and value.get("type") not in SILENT_TYPES:
        call = None if value.keys().isdisjoint(CALL_MARKS) else _call(value)
        if call is not None:
            pieces.append(call)
        for key in PART_KEYS if call is None or "content" in value else ():
            if key not in value:
                continue
            if key == "response":
                pieces.append(lines(value[key]))
            else:
                _add_pieces(value[key], pieces)


def _call(value: dict[str, Any]) -> Call | None:
    inner = next((value[key] for key in CALL_KEYS if isinstance(value.get(key), dict)), None)
    if inner is None and value.get("type") in CALL_TYPES:
        inner = value
    if inner is None or not isinstance(inner.get("name"), str):
        return None
    arguments = next((inner[key] for key in ARGUMENT_KEYS if key in inner), None)
    return Call(inner["name"], parse(arguments) if isinstance(arguments, str) else arguments)


def _call_document(call: Call) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


def calls_document(calls: tuple[Call, ...]) -> dict[str, Any]:
    """Calls of any API as OpenAI writes them: `tool_calls.function.name`, `tool_calls.function.arguments.<key>`."""
    return {"tool_calls": [{"function": _call_document(call)} for call in calls]}


def answered(body: dict[str, Any]) -> Answer:
    """The answer in a response; the whole of it where it is of no API that is known."""
    message = _message(body)
    if message is None:
        return Answer(lines(body), document=body)
    pieces = _pieces(message)
    text = "\n".join([piece for piece in pieces if isinstance(piece, str) and piece])
    document = parse(text)
    return Answer(
        lines(document) if isinstance(document, dict) else text,
        tuple([piece for piece in pieces if isinstance(piece, Call)]),
        document if isinstance(document, dict) else None,
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _message(body: dict[str, Any]) -> Any:
    """The part of a response that is the message; None where none is known."""
    choice = _first(body.get("choices"))
    if isinstance(choice, dict):
        return choice.get("message") or choice.get("text", "")
    candidate = _first(body.get("candidates"))
    if isinstance(candidate, dict):
        return candidate.get("content", "")
    output = body.get("output")
    if isinstance(output, dict) and isinstance(output.get("message"), dict):
        return output["message"]
    if isinstance(output, list) and (body.get("object") == "response" or "usage" in body):
        return output
    if isinstance(body.get("message"), dict):
        return body["message"]
    is_message = body.get("role") == "assistant" or body.get("type") == "message"
    return body if is_message and "content" in body else None
