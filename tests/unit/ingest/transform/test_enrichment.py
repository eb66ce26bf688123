"""What is derived from the bodies of a request, shape by shape, and that no body whatever breaks it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.clickhouse.sql import text_of
from ingest.transform.enrichment import DERIVED, READ, derive

USER = {"role": "user", "content": "How do refunds work?"}


def derived(request: Any = "", response: Any = "", raw: str = "", **others: Any) -> dict[str, Any]:
    """As the decoder leaves them: strings as they are, everything else as JSON."""
    bodies = {"request_body": request, "response_body": response, "response_body_raw": raw, **others}
    texts = {name: body if isinstance(body, str) else json.dumps(body) for name, body in bodies.items()}
    found: dict[str, Any] = derive([{"prompt_id": "", "input_variables": "", **texts}]).to_pylist()[0]
    return found


def chat(content: Any, **others: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **others}}]}


def stream(*events: Any) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


OPENAI = {"messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": [{"type": "text", "text":
          "Hi"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]}  # fmt: skip
ANTHROPIC = {"system": [{"type": "text", "text": "Be brief"}], "messages": [{"role": "user", "content": "Hi"}]}
GEMINI = {"systemInstruction": {"parts": [{"text": "Be brief"}]}, "contents": [{"parts": [{"text": "Hi"}]}]}
RESPONSES = {"instructions": "Be brief", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}
RESPONSES_TEXT = {"instructions": "Be brief", "input": "Hi"}
BEDROCK = {"system": [{"text": "Be brief"}], "messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


@pytest.mark.parametrize("body", [OPENAI, ANTHROPIC, GEMINI, RESPONSES, RESPONSES_TEXT, BEDROCK])
def test_the_messages_of_every_api_read_the_same(body: Any) -> None:
    assert derived(body)["input_text"] == "[system]: Be brief\n\n[user]: Hi"


def test_other_requests_are_text_as_they_are() -> None:
    assert derived("Just a question")["input_text"] == "Just a question"
    assert derived({"prompt": "Once upon a time"})["input_text"] == "Once upon a time"
    assert derived({"query": {"text": "x", "top": 3}})["input_text"] == "query.text: x\nquery.top: 3"


TEXT_ANSWERS = {
    "openai chat": chat("Thirty days."),
    "openai completion": {"choices": [{"text": "Thirty days."}]},
    "openai responses": {"object": "response", "output": [{"type": "reasoning", "content": [{"text": "hm"}]},
                         {"type": "message", "content": [{"type": "output_text", "text": "Thirty days."}]}]},
    "anthropic": {"type": "message", "role": "assistant", "content": [{"type": "thinking", "thinking": "hm"},
                  {"type": "text", "text": "Thirty days."}]},
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "Thirty days."}]}}]},
    "bedrock": {"output": {"message": {"role": "assistant", "content": [{"text": "Thirty days."}]}}},
    "ollama": {"message": {"role": "assistant", "content": "Thirty days."}},
    "plain text": "Thirty days.",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_ANSWERS)
def test_a_text_answer_is_plain_text_whichever_api_it_came_from(name: str) -> None:
    found = derived(OPENAI, TEXT_ANSWERS[name])
    assert found["output_text"] == "Thirty days."
    assert not found["is_json"]
    assert not found["is_tool_call"]
    assert found["output"] == "{}"
    assert (found["tool_names"], found["tool_call_count"], found["turn_count"]) == ([], 0, 1)


ARGUMENTS = {"query": "active users", "limit": 10}
CALLS = {
    "openai chat": chat(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "search",
                        "arguments": json.dumps(ARGUMENTS)}}]),
    "openai function": chat(None, function_call={"name": "search", "arguments": json.dumps(ARGUMENTS)}),
    "openai responses": {"object": "response", "output": [{"type": "function_call", "name": "search",
                         "arguments": json.dumps(ARGUMENTS)}]},
    "anthropic": {"type": "message", "content": [{"type": "tool_use", "id": "1", "name": "search",
                  "input": ARGUMENTS}]},
    "gemini": {"candidates": [{"content": {"parts": [{"functionCall": {"name": "search", "args": ARGUMENTS}}]}}]},
    "bedrock": {"output": {"message": {"content": [{"toolUse": {"name": "search", "input": ARGUMENTS}}]}}},
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_tool_call_has_the_same_keys_whichever_api_it_came_from(name: str) -> None:
    found = derived(OPENAI, CALLS[name])
    assert found["is_tool_call"]
    assert not found["is_json"]
    assert (found["tool_names"], found["tool_call_count"]) == (["search"], 1)
    assert found["output_text"] == "search\nactive users\n10"
    assert json.loads(found["output"]) == {
        "tool_calls.function.name": ["search"],
        "tool_calls.function.arguments.query": ["active users"],
        "tool_calls.function.arguments.limit": ["10"],
    }


def test_several_calls_under_one_key_keep_all_their_values() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("search", "send_email", "search")]
    found = derived(OPENAI, chat("I will look.", tool_calls=calls))
    assert json.loads(found["output"]) == {"tool_calls.function.name": ["search", "send_email", "search"]}
    assert found["tool_names"] == ["search", "send_email"]
    assert found["tool_call_count"] == 3
    assert found["output_text"].startswith("I will look.\nsearch")


@pytest.mark.parametrize("wrap", [chat, lambda text: text], ids=["in a chat answer", "as the body"])
def test_a_json_object_is_json_with_its_keys_flattened(wrap: Any) -> None:
    text = '{"result": {"status": "approved", "score": 0.95}, "list": [1, 2.0, true, null], "none": null}'
    found = derived("q", wrap(text))
    assert found["is_json"]
    assert json.loads(found["output"]) == {
        "result.status": ["approved"], "result.score": ["0.95"], "list": ["1", "2", "true"]
    }  # fmt: skip
    assert found["output_text"] == "result.status: approved\nresult.score: 0.95\nlist: 1\nlist: 2\nlist: true"


@pytest.mark.parametrize("text", ["[1, 2, 3]", "42", "true", '"quoted"', "null", "{broken"])
def test_arrays_and_other_json_are_plain_text(text: str) -> None:
    found = derived("q", text)
    assert not found["is_json"]
    assert found["output_text"] == text


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


def call_delta(**function: str) -> dict[str, Any]:
    return delta(tool_calls=[{"index": 0, "function": function}])


STREAMS = {
    "openai": stream(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"),
                     call_delta(name="f", arguments=""), call_delta(arguments='{"a":'), call_delta(arguments="1}")),
    "anthropic": stream({"type": "message_start", "message": {"role": "assistant", "content": []}},
                        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
                        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f",
                         "input": {}}},
                        {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '{"a": 1}'}}),
    "gemini": stream({"candidates": [{"content": {"parts": [{"text": "Hello"}]}}]},
                     {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]}}]}),
    "openai responses": stream({"type": "response.output_text.delta", "delta": "Hel"},
                               {"type": "response.completed", "response": {"object": "response", "output": [
                                {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
                                {"type": "function_call", "name": "f", "arguments": '{"a": 1}'}]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_reads_like_the_whole_answer(name: str) -> None:
    found = derived("q", raw=STREAMS[name])
    assert found["output_text"] == "Hello\nf\n1"
    assert found["tool_names"] == ["f"]


def test_a_conversation_logged_in_one_place_ends_with_the_answer() -> None:
    found = derived({"messages": [USER, {"role": "assistant", "content": "Thirty days."}]})
    assert found["input_text"] == "[user]: How do refunds work?"
    assert found["output_text"] == "Thirty days."
    assert found["turn_count"] == 1


def test_turns_are_the_answers_of_the_model() -> None:
    messages = [USER, {"role": "assistant", "content": "Well."}, USER]
    assert derived({"messages": messages}, chat("Yes."))["turn_count"] == 2
    assert derived({"messages": [USER]})["turn_count"] is None


def test_variables_are_those_of_a_prompt() -> None:
    variables = {"name": "Ann", "items": [{"id": 1}, {"id": 2}]}
    assert derived(input_variables=variables)["variables"] == "{}"
    found = derived(input_variables=variables, prompt_id="7")["variables"]
    assert json.loads(found) == {"name": ["Ann"], "items.id": ["1", "2"]}


@pytest.mark.parametrize(
    ("asked", "answered", "user_intent", "agent_intent"),
    [
        ("This still doesn't work, useless!", "I'm sorry, I can't help with that.", "frustrated", "refusal"),
        ("Perfect, thank you", "I apologize for the confusion.", "satisfied", "apologetic"),
        ("Why is the sky blue?", "Perhaps because of scattering.", "curious", "uncertain"),
        ("Translate: Haus", "house", "", ""),
    ],
)
def test_intents_follow_their_words(asked: str, answered: str, user_intent: str, agent_intent: str) -> None:
    found = derived({"messages": [{"role": "user", "content": asked}]}, chat(answered))
    assert (found["user_intent"], found["agent_intent"]) == (user_intent, agent_intent)


def test_intents_stay_with_their_rows_among_rows_without_any() -> None:
    """Also where a text has the words of two, and where no row has any."""
    asked = ["Book it", "This is still broken, why?", "Why is that?", "", "Thanks, but it is not working", "Go on"]
    rows = [{**dict.fromkeys(READ, ""), "request_body": text, "response_body": "Sorry, not sure"} for text in asked]
    found = derive(rows)
    assert found["user_intent"].to_pylist() == ["", "frustrated", "curious", "", "frustrated", ""]
    assert found["agent_intent"].to_pylist() == ["apologetic"] * len(rows)
    assert derive(rows[:1])["user_intent"].to_pylist() == [""]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "output", "candidates", "parts", "tool_calls", "function",
                         "name", "arguments", "text", "type", "role", "messages", "delta", "index", "response"])
        | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=500)
@given(JSON, JSON)
def test_no_json_breaks_it(request: Any, response: Any) -> None:
    found = derived(request, response)
    assert {field.name for field in DERIVED} <= set(found)
    json.loads(found["output"])
    assert derived("", "", raw=stream(response, request))["output_text"] is not None


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000, '{"a": "\\ud800"}', '{"a": "x\\u0000y"}', "\ufeff{}", "data:",
     "data: {", '{"a":1e400}', '{"a":' + "9" * 400 + "}"],
    ids=["open brackets", "deep", "lone surrogate", "nul", "byte order mark", "empty event", "broken event",
         "huge exponent", "huge number"],
)  # fmt: skip
def test_odd_texts_are_kept_as_text_or_read(text: str) -> None:
    for found in (derived(text, text), derived(raw=text)):
        assert "\0" not in found["output_text"] + found["output"]
        found["output_text"].encode()


@pytest.mark.parametrize("number", ["0.00001", "0.0000001", "1e15", "1.5e20", "1e21", "2.5e22", "-0.0", "12.50"])
def test_a_number_in_an_answer_is_written_as_filters_write_it(number: str) -> None:
    found = json.loads(derived("q", '{"score": ' + number + "}")["output"])
    assert found == {"score": [text_of(float(number))]}
    assert "e+" not in found["score"][0]


def test_small_numbers_are_written_in_full() -> None:
    found = json.loads(derived("q", '{"small": 0.00001, "tiny": 1e-7, "large": 1e16}')["output"])
    assert found == {"small": ["0.00001"], "tiny": ["1e-7"], "large": ["10000000000000000"]}
