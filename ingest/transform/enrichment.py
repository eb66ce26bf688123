"""Derives the columns that search and analytics need and gateways do not send: texts, keys, tools, turns, intents.

Only events with a body (or variables of a prompt) are looked at, one by one; for all others the columns are constant.
What the gateway has sent itself stays as it is.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ingest.transform.conversation import Answer, Message, answered, asked, calls_document, parse, scalars
from ingest.transform.sse import whole_response

BODY_FIELDS = ("request_body", "response_body", "response_body_raw")
READ = (*BODY_FIELDS, "prompt_id", "input_variables")
# More keys than this are no schema any more, and each may become a column inside ClickHouse. The text of the answer
# has them all.
MAX_PATHS = 1_000
# Moods show early, and searching long texts for them would cost more than all the rest.
INTENT_CHARS = 500

DERIVED = pa.schema(
    [
        ("is_json", pa.bool_()),
        ("is_tool_call", pa.bool_()),
        ("output", pa.string()),
        ("variables", pa.string()),
        ("user_intent", pa.string()),
        ("agent_intent", pa.string()),
        ("input_text", pa.string()),
        ("output_text", pa.string()),
    ]
)
# Columns of the event that are filled in where the gateway has left them out.
COMPLETED = pa.schema(
    [("tool_names", pa.list_(pa.string())), ("tool_call_count", pa.uint32()), ("turn_count", pa.uint32())]
)
NOTHING: dict[str, Any] = {
    "is_json": False, "is_tool_call": False, "output": "{}", "variables": "{}", "user_intent": "", "agent_intent": "",
    "input_text": "", "output_text": "", "tool_names": [], "tool_call_count": None, "turn_count": None,
    "last_user_text": "", "answer_text": "",
}  # fmt: skip
# Of one row, before its moods: the beginnings of the last user message and of the answer.
ROW = pa.schema(
    [field for field in (*DERIVED, *COMPLETED) if not field.name.endswith("_intent")]
    + [pa.field("last_user_text", pa.string()), pa.field("answer_text", pa.string())]
)

# The first that is found counts.
USER_INTENTS = {
    "frustrated": r"not working|does ?n['o]t work|still (?:wrong|broken|fails|not)|frustrat|annoy|useless|ridiculous"
    r"|terrible|waste of time|makes no sense",
    "satisfied": r"thanks|thank you|perfect|awesome|that works|works now|great (?:job|answer)|exactly what i",
    "curious": r"(?:how|why|what|when|where|which|who|could you explain|i wonder)\b[^?]*\?",
}
AGENT_INTENTS = {
    "refusal": r"i (?:can(?:no|')t|won't|will not|am unable to|am not able to)|i'm (?:unable to|not able to)"
    r"|can(?:no|')t (?:help|assist|comply)",
    "apologetic": r"sorry|apolog(?:y|ies|i[sz]e)|my mistake",
    "uncertain": r"not (?:sure|certain)|uncertain|unclear|i (?:think|guess|don't know)|(?:might|may) be|perhaps",
}


def _moods(texts: pa.Array, patterns: Mapping[str, str]) -> pa.Array:
    """The mood of each text, in RE2: Python's own expressions took longer than everything else here together."""
    lower = pc.replace_substring(pc.utf8_lower(texts), "\u2019", "'")
    # Most texts have none, which one pass finds.
    has_any = pc.match_substring_regex(lower, rf"\b(?:{'|'.join(patterns.values())})")
    some = lower.filter(has_any)
    found = [pc.match_substring_regex(some, rf"\b(?:{pattern})") for pattern in patterns.values()]
    moods = pc.case_when(pc.make_struct(*found), *patterns, "")
    return pc.replace_with_mask(pa.repeat(pa.scalar(""), len(texts)), has_any, moods)


def with_derived(events: pa.Table) -> pa.Table:
    """The events (EVENT_SCHEMA) with the columns of DERIVED, and those of COMPLETED filled in."""
    has_variables = pc.and_(pc.not_equal(events["input_variables"], ""), pc.not_equal(events["prompt_id"], ""))
    has_body = reduce(pc.or_, (pc.not_equal(events[name], "") for name in BODY_FIELDS), has_variables)
    has_body = has_body.combine_chunks()
    found = None
    if pc.any(has_body).as_py():
        found = derive(events.select(READ).filter(has_body).to_pylist())
        events = _completed(events, has_body, found)
    for field in DERIVED:
        if found and len(found) == len(events):
            column = found[field.name]
        else:
            column = pa.repeat(pa.scalar(NOTHING[field.name], field.type), len(events))
            if found:
                column = pc.replace_with_mask(column, has_body, found[field.name].combine_chunks())
        events = events.append_column(field, column)
    return events


def _completed(events: pa.Table, has_body: pa.BooleanArray, found: pa.Table) -> pa.Table:
    places = pc.indices_nonzero(has_body).to_pylist()
    for field in COMPLETED:
        values, derived = events[field.name].to_pylist(), found[field.name].to_pylist()
        for place, value in zip(places, derived, strict=True):
            if not values[place] and values[place] != 0:
                values[place] = value
        index = events.schema.get_field_index(field.name)
        events = events.set_column(index, field.name, pa.array(values, field.type))
    return events


def derive(rows: Sequence[Mapping[str, str]]) -> pa.Table:
    """What is derived (DERIVED and COMPLETED) from columns of READ, row by row. Never raises for what a body holds."""
    found = pa.Table.from_pylist([_derived_or_text(row) for row in rows], ROW)
    moods = [
        _moods(found["last_user_text"].combine_chunks(), USER_INTENTS),
        _moods(found["answer_text"].combine_chunks(), AGENT_INTENTS),
    ]
    for name, column in zip(("user_intent", "agent_intent"), moods, strict=True):
        found = found.append_column(name, column)
    return found


def _derived_or_text(row: Mapping[str, str]) -> dict[str, Any]:
    try:
        return _derive(row)
    except RecursionError:
        texts = {"input_text": row["request_body"], "output_text": row["response_body"] or row["response_body_raw"]}
        return NOTHING | {name: _storable(text) for name, text in texts.items()}


def _derive(row: Mapping[str, str]) -> dict[str, Any]:
    messages = asked(parse(row["request_body"]))
    answer = _answer(row)
    if answer is None and messages and messages[-1].role == "assistant":
        # The gateway logs the whole conversation in one place.
        answer = answered({"message": {"content": messages.pop().text}})
    is_known = answer is not None
    answer = answer or Answer("")
    turns = [message.role for message in messages].count("assistant") + is_known
    variables = parse(row["input_variables"]) if row["prompt_id"] else {}
    return {
        "is_json": answer.document is not None and not answer.calls,
        "is_tool_call": bool(answer.calls),
        "output": _flat(calls_document(answer.calls) if answer.calls else {}, answer.document or {}),
        "variables": _flat(variables),
        "last_user_text": _storable(_last_user_text(messages)[:INTENT_CHARS]),
        "answer_text": _storable(answer.text[:INTENT_CHARS]),
        "input_text": _storable("\n\n".join([_with_role(message) for message in messages])),
        "output_text": _storable(_output_text(answer)),
        "tool_names": list(dict.fromkeys([_storable(call.name) for call in answer.calls])),
        "tool_call_count": len(answer.calls) if is_known else None,
        "turn_count": turns or None,
    }


def _answer(row: Mapping[str, str]) -> Answer | None:
    raw = row["response_body"] or row["response_body_raw"]
    if not raw:
        return None
    body = parse(raw) if row["response_body"] else whole_response(raw)
    return answered(body) if isinstance(body, dict) else Answer(raw)


def _with_role(message: Message) -> str:
    return f"[{message.role}]: {message.text}" if message.role else message.text


def _output_text(answer: Answer) -> str:
    if not answer.calls:
        return answer.text
    called = [text for call in answer.calls for _, text in scalars([call.name, call.arguments])]
    return "\n".join(text for text in (answer.text, *called) if text)


def _last_user_text(messages: Sequence[Message]) -> str:
    return next((message.text for message in reversed(messages) if message.role in ("user", "")), "")


def _storable(text: str) -> str:
    """Without NUL, which a JSON text inside a string body may spell out."""
    return text.replace("\0", "") if "\0" in text else text


def _flat(*documents: dict[str, Any]) -> str:
    """JSON of every dotted path with the list of its scalars as text."""
    if not any(documents):
        return "{}"
    paths: dict[str, list[str]] = {}
    for document in documents:
        for path, text in scalars(document):
            if path in paths or len(paths) < MAX_PATHS:
                paths.setdefault(path, []).append(text)
    return _storable(msgspec.json.encode(paths).decode()) if paths else "{}"
