"""Folds a streamed answer, server-sent events of OpenAI, Anthropic or Gemini, into one body."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from ingest.transform.conversation import parse

Calls = dict[int | str, dict[str, str]]

LINE_END = re.compile("\r\n|\r|\n")


def whole_response(raw: str) -> Any:
    """The body that a raw response is: JSON, a stream folded into one message, or the text itself."""
    body = parse(raw)
    if not isinstance(body, str) or "data:" not in raw:
        return body if not isinstance(body, list) else _folded(iter(body)) or body
    return _folded(stream_messages(raw)) or raw


def stream_messages(raw: str, words: tuple[str, ...] = ("",)) -> Iterator[Any]:
    """The JSON documents of a stream that hold one of `words`, and as text what is none (`[DONE]`, a line cut short).

    Several lines of data are one document if they read as one (HTML Standard, "Server-sent events", joins them by line
    feeds), else a document each: gateways log streams without the blank lines between events.
    """
    for lines in _event_data(raw):
        whole = _parsed("\n".join(lines), words)
        if isinstance(whole, str) and len(lines) > 1:
            yield from (_parsed(line, words) for line in lines)
        else:
            yield whole


def _parsed(text: str, words: tuple[str, ...]) -> Any:
    return parse(text) if any(word in text for word in words) else ""


def _event_data(raw: str) -> Iterator[list[str]]:
    """The lines of data of each event. A line ends with CR, LF or CRLF and nothing else (HTML Standard, "Server-sent
    events"): U+2028, U+2029 and U+0085 are text. An event that no blank line ends counts, the stream may be cut."""
    data: list[str] = []
    for line in LINE_END.split(raw.removeprefix("\ufeff")):
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield data
            data = []
    if data:
        yield data


def _folded(events: Iterator[Any]) -> dict[str, Any] | None:
    """None when nothing in it is an event of an API that is known."""
    texts: list[str] = []
    calls: Calls = {}
    is_known = False
    for event in events:
        if not isinstance(event, dict):
            continue
        if event.get("type") == "response.completed" and isinstance(event.get("response"), dict):
            whole: dict[str, Any] = event["response"]
            return whole
        for delta in _deltas(event):
            is_known = True
            _add(delta, texts, calls)
    content: list[dict[str, Any]] = [{"type": "text", "text": "".join(texts)}]
    content += [
        {"type": "tool_use", "name": call["name"], "input": parse(call["arguments"])} for call in calls.values()
    ]
    return {"role": "assistant", "content": content} if is_known else None


def _deltas(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each as `{text, index, name, arguments}`, of which any may be missing."""
    kind, index = event.get("type"), event.get("index")
    if kind == "content_block_start" and isinstance(block := event.get("content_block"), dict):
        yield {"text": block.get("text"), "index": index, "name": block.get("name")}
    elif kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
        yield {"text": delta.get("text"), "index": index, "arguments": delta.get("partial_json")}
    for choice in _list(event.get("choices"))[:1]:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            yield {"text": delta.get("content")}
            yield from (_openai_call(call) for call in _list(delta.get("tool_calls")))
        yield {"text": choice.get("text")}
    for candidate in _list(event.get("candidates"))[:1]:
        content = candidate.get("content")
        for part in _list(content.get("parts")) if isinstance(content, dict) else ():
            yield {"text": part.get("text")}
            if isinstance(call := part.get("functionCall"), dict):
                yield {"name": call.get("name"), "arguments": msgspec.json.encode(call.get("args")).decode()}


def _openai_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return {"index": call.get("index"), "name": function.get("name"), "arguments": function.get("arguments")}


def _add(delta: dict[str, Any], texts: list[str], calls: Calls) -> None:
    if isinstance(delta.get("text"), str):
        texts.append(delta["text"])
    # Whole calls have no index, and are each a new one.
    index = delta.get("index")
    key = index if isinstance(index, int) else f"whole {len(calls)}"
    if isinstance(delta.get("name"), str):
        calls[key] = {"name": delta["name"], "arguments": ""}
    if key in calls and isinstance(delta.get("arguments"), str):
        calls[key]["arguments"] += delta["arguments"]


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
