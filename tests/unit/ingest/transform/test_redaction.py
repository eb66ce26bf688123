"""No credential gets past redaction, whatever it stands in; what is none stays as it was."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.transform.redaction import MARK, redact_bytes, redact_headers, redact_text
from ingest.transform.secret_names import is_secret

CANARY = "canary-7Kq9"

SECRET_NAMES = [
    "authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "cookie2", "x-api-key", "X-Goog-Api-Key", "api_key",
    "apikey", "apiKey", "Helicone-Auth", "Ocp-Apim-Subscription-Key", "x-functions-key", "x-litellm-key",
    "x-portkey-virtual-key", "x-amz-signature", "X-Amz-Security-Token", "x-auth", "auth", "x-auth-token", "x-jwt",
    "bearer", "credentials", "private-key", "secret-key", "x-access-key", "x-passwd", "password", "x-session-id",
    "sessionId", "x-api-keys", "auth-tokens", "client_secrets", "passwords", "accessToken", "refresh_token",
    "xsrf-token",
    "Authorization ", " authorization", "Author\u200bization", "\ufeffauthorization", "Ａｕｔｈｏｒｉｚａｔｉｏｎ",
    "x－api－key", "AUTHORIZATION",
]  # fmt: skip
HARMLESS_NAMES = [
    "content-type", "accept", "user-agent", "x-request-id", "x-ratelimit-remaining-tokens", "tokens", "max_tokens",
    "api_key_id", "api_key_name", "author", "authority", "key", "keyword", "monkey", "idempotency-key",
    "prompt_cache_key", "design", "signal", "",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_is_secret_in_any_spelling(name: str) -> None:
    assert is_secret(name)
    assert redact_headers({name: CANARY, "accept": "text"}) == {name: MARK, "accept": "text"}


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_a_name_that_only_sounds_secret_is_none(name: str) -> None:
    assert not is_secret(name)
    assert redact_headers({name: "12"}) == {name: "12"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"headers": [{"name": "authorization", "value": CANARY}]}, id="pairs as objects"),
        pytest.param({"headers": [{"key": "x-api-key", "value": {"stringValue": CANARY}}]}, id="attributes of OTLP"),
        pytest.param({"headers": [["x-api-key", CANARY]]}, id="pairs as lists"),
        pytest.param({"raw": ["x-api-key", CANARY, "accept", "text"]}, id="names and values in turn"),
        pytest.param({"raw": f"GET / HTTP/1.1\r\nAuthorization: {CANARY}\r\n"}, id="lines"),
        pytest.param({"raw": json.dumps({"authorization": CANARY})}, id="JSON as text"),
        pytest.param({"referer": f"https://example.org/?api_key={CANARY}&page=1"}, id="query"),
        pytest.param({"x-note": f"Bearer {CANARY}"}, id="bearer under any name"),
        pytest.param({"x-note": "sk-ant-api03-canary-7Kq9-0123456789"}, id="a key under any name"),
        pytest.param({"x-note": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnktN0txOSJ9.canary-7Kq9"}, id="JWT"),
        pytest.param({"upstream": {"deep": [{"cookie": [CANARY]}]}}, id="deep"),
        pytest.param({"tokens": "canary-7Kq9-0123456789-abcdef"}, id="random value of a doubtful name"),
    ],
)
def test_a_credential_is_found_wherever_headers_hold_it(headers: dict[str, Any]) -> None:
    redacted = json.dumps(redact_headers(headers))
    assert CANARY not in redacted
    assert MARK in redacted


def test_what_is_no_credential_stays_in_headers() -> None:
    headers = {
        "x-ratelimit-remaining-tokens": "149984", "note": 'say "authorization":"x"', "basic": "basic understanding",
        "path": "/v1/chat/completions?stream=true&page=2", "tokens": ["1", "2"], "task": "sk-learn", "n": 5,
    }  # fmt: skip
    assert redact_headers(headers) == headers


# `{}` is where the credential stands; what is called kept must still be there.
RECORDS = [
    '{"authorization": "{}", "kept": 1}',
    '{"authorization" : "a\\"{}", "kept": 1}',
    '{"request_headers": "{\\"authorization\\": \\"{}\\", \\"kept\\": 1}", "b": 2}',
    '{"a": "{\\"b\\": \\"{\\\\\\"password\\\\\\": \\\\\\"{}\\\\\\", \\\\\\"kept\\\\\\": 1}\\"}"}',
    '[{"name": "authorization", "value": "{}"}, {"kept": 1}]',
    '{"value": "{}", "name": "authorization", "kept": 1}',
    '{"key": "api_key", "value": {"stringValue": "{}"}, "kept": 1}',
    '[["x-api-key", "{}"], ["kept", "b"]]',
    "{'authorization': '{}', 'kept': 1}",
    "{authorization: {}}",
    '{"authorization": Bearer {}, "kept": 1',
    '{"api_key": {"a": "{}"',
    '{"api_key": {"a": ["{}", "}"]}, "kept": 2}',
    '{"\\u0061uthorization": "{}", "kept": 1}',
    '{"Ａuthorization": "{}", "kept": 1}',
    '{"Author\u200bization ": "{}", "kept": 1}',
    "grant_type=x&password={}&kept=1",
    '{"url": "https://example.org/?a=1&token={}&kept=2"}',
    "POST /x?api_key={} HTTP/1.1\r\nAuthorization: Bearer {}\r\nCookie: a={}; b={}\r\nHost: kept\r\n",
    '{"raw": "GET /\\r\\nCookie: a={}; b=c\\r\\nHost: kept"}',
    'x-api-key = "{}"',
    "curl -H 'x-api-key: {}'",
    '{"text": "it said Bearer {} and kept"}',
    '{"error_message": "Incorrect API key provided: sk-proj-{}-0123456789", "kept": 1}',
    '{"request_headers": {"session_id": "{}"}, "kept": 1}',
]


@pytest.mark.parametrize("template", RECORDS)
def test_a_rejected_record_loses_its_credentials_and_nothing_else(template: str) -> None:
    record = template.replace("{}", CANARY)
    redacted = redact_bytes(record.encode()).decode()
    assert CANARY not in redacted
    assert MARK in redacted
    assert ("kept" in redacted) == ("kept" in template)
    assert redact_bytes(redacted.encode()).decode() == redacted


def test_every_other_byte_of_a_rejected_record_stays() -> None:
    record = b'{ "session_id":"s-1", "api_key_id": "key-3","metadata": {"n": 1.50, "n": 2}, "tokens": 12, \xff}'
    assert redact_bytes(record) == record


@pytest.mark.parametrize(
    "part",
    [
        b"auth",
        b"key=",
        b"key:[",
        b"eyJ-",
        b"gsk_",
        b"xai-",
        b"sk-",
        b"bearer ",
        b"basic ",
        b'"token" ',
        b'"key": \'\\',
        b"token:",
        b'"',
        b"\\",
        b"{",
    ],
)
def test_the_time_of_a_scan_grows_with_the_length_alone(part: bytes) -> None:
    def seconds(length: int) -> float:
        began = time.thread_time()
        redact_bytes(b"token" + part * (length // len(part)))
        return time.thread_time() - began

    few, many = seconds(25_000), seconds(200_000)
    # Eight times the bytes; the square of that would be 64 times the time.
    assert many < 0.05 + 24 * few


def test_a_record_that_is_nested_too_deep_to_be_read_is_redacted_as_text() -> None:
    record = b'{"a":' * 700 + b'{"password": "%s"}' % CANARY.encode() + b"}" * 700
    assert CANARY.encode() not in redact_bytes(record)


@given(st.text(alphabet="aA:=\"'\\{}[],& \n\u200btokenkeyauth-%3D"))
def test_no_text_makes_the_scan_fail_or_unmask(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once).count(MARK) >= once.count(MARK)


@given(st.sampled_from(SECRET_NAMES), st.text(alphabet=st.characters(codec="utf-8"), max_size=20))
def test_any_value_of_a_secret_name_is_masked_in_json(name: str, other: str) -> None:
    record = json.dumps({"other": other, name: f"{other}{CANARY}", "last": [other]}, ensure_ascii=False)
    assert CANARY not in redact_bytes(record.encode()).decode()
