"""Secrets never reach storage: credentials are replaced by a mark before anything is written.

Headers are looked through by name and by value. A dead letter may be anything (broken JSON, a form, raw HTTP), so its
text is scanned: what follows a secret name is masked up to where a value can end, and so is every value that has the
shape of a credential. In doubt the scan masks too much.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.transform.secret_names import CREDENTIALS, is_doubtful, is_secret, looks_random
from router_insights.emitter.event import FIELD_NAMES

MARK = "[redacted]"
# In a header's value: lines of headers, JSON, an escaped query. Each is a sign of a name with a value in it.
_SIGNS = (*CREDENTIALS, "%3d", "\0{", "\0[", "\0 ", "\r", "\n")
_NESTED = re.compile(r"%3d|\0\s*[{\[]|[\r\n]")
_NAME_BACKWARDS = re.compile(r"[\w-]{1,40}")

# What a secret name holds, in lower case; and signs that may hide one. Names are read around these places.
_STEMS = (
    *("auth", "cookie", "key", "token", "secret", "passw", "passphrase", "passcode", "pwd", "cred", "jwt", "bearer"),
    *("sig", "session"),
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_NAME_SIGN = re.compile(r"[\w.\-\u00ad\u200b-\u200f\u2010-\u2015\u2060-\u2064\ufe63\ufeff\uff0d\uff0e]")
_MAX_NAME = 80
_BLANK = r"[\s\u00a0\u00ad\u200b-\u200f\u2060-\u2064\ufeff]*+"
# After a name: `"name": `, `name=`, `Name: `; or the second of a pair: `["name", `, `{"name": "...", "value": `.
_ASSIGNMENT = re.compile(_BLANK + r"(?P<quote>\\*[\"'])?\s*(?P<sign>[:=]|%3[Dd])\s*")
_PAIR = re.compile(
    _BLANK
    + r"(?P<quote>\\*[\"'])\s*,\s*(?:\\*[\"'](?:string_?)?values?\\*[\"']\s*:\s*)?(?:\{\s*\\*[\"']\w+\\*[\"']\s*:\s*)?",
    re.I,
)
_BRACKET = re.compile(r"(?<!\\)(\\*+)([\"'])|[{}\[\]]")
_QUOTE = re.compile(r"(?<!\\)(\\*+)([\"'])")
_WORD = re.compile(r"[A-Za-z0-9+/_.~-]{20,512}={0,2}")
_MEMBER_NAME = re.compile(r"\s*:")
_MEMBER_END = re.compile(r"[,}\]\r\n]|\Z")
_FORM_END = re.compile(r"[&\s\"'\\;,<>]|%26|\Z")
_LINE_END = re.compile(r"[\r\n\"]|(?<!\\)\\++[rn\"]|\Z")


def redact_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers with credentials, at any depth, replaced by `MARK`."""
    if isinstance(name := headers.get("name", headers.get("key")), str) and is_secret(name):
        return {key: MARK if key.lower().startswith("value") else value for key, value in headers.items()}
    redacted = {name: MARK if is_secret(name) else _redact_member(name, value) for name, value in headers.items()}
    # Of all values at once: that is cheap, and nearly always the answer is no.
    texts = "\0" + "\0".join([value for value in redacted.values() if type(value) is str and value is not MARK]).lower()
    if any(sign in texts for sign in _SIGNS) or _assigns_secret(texts):
        return {name: _redact_header_text(value) for name, value in redacted.items()}
    return redacted


def _redact_member(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return MARK if is_doubtful(name) and looks_random(value) else value
    return _redact_value(value)


def _assigns_secret(text: str) -> bool:
    """Whether a secret name stands before `=`, as in queries and forms."""
    before = (_NAME_BACKWARDS.match(part[:-41:-1]) for part in text.split("=")[:-1])
    return any(is_secret(found[0][::-1]) for found in before if found)


def _redact_header_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    is_nested = _NESTED.search(f"\0{value.lower()}") or _assigns_secret(value)
    return redact_text(value) if is_nested else _without_credentials(value)


def _redact_value(value: Any) -> Any:
    if isinstance(value, dict):
        return redact_headers(value)
    if isinstance(value, list):
        # Names and values in turn, or as pairs.
        names = [None, *value]
        return [
            MARK if isinstance(name, str) and is_secret(name) else _redact_value(item)
            for name, item in zip(names, value, strict=False)
        ]
    return _redact_header_text(value)


def redact_bytes(raw: bytes) -> bytes:
    """A rejected record without its credentials; every other byte stays as it was.

    Only where the scan of the text has overlooked one, in JSON that can be parsed, the record is written again.
    """
    masked = redact_text(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    try:
        value = json.loads(masked)
        redacted = _redact_record(value)
    except (ValueError, RecursionError):
        return masked
    return masked if redacted == value else json.dumps(redacted, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _redact_record(value: Any) -> Any:
    """A rejected event, or a list of them. `session_id` is a field of the contract, and a secret only in headers."""
    if isinstance(value, list):
        return [_redact_record(item) for item in value]
    if not isinstance(value, dict):
        return _redact_value(value)
    fields = {name: _redact_value(item) if name in FIELD_NAMES else item for name, item in value.items()}
    others = redact_headers({name: item for name, item in fields.items() if name not in FIELD_NAMES})
    return fields | others


def redact_text(text: str) -> str:
    """A text in any format without its credentials."""
    pieces, end = [], 0
    for name_end, name in _names(text):
        if name_end < end:
            continue
        span = _value_after(text, name_end, is_sure=is_secret(name))
        if span is not None:
            start, stop, quote = span
            pieces += [text[end:start], quote, MARK, quote]
            end = stop
    return _without_credentials("".join((*pieces, text[end:])))


def _without_credentials(text: str) -> str:
    pieces, end = [], 0
    for start, stop in sorted(_credentials(text)):
        if start >= end:
            pieces += [text[end:start], MARK]
            end = stop
    return "".join((*pieces, text[end:]))


def _credentials(text: str) -> Iterator[tuple[int, int]]:
    """From where to where each value goes that has the shape of a credential. Of different kinds they may overlap."""
    lowered = _lowered(text)
    for begin, pattern in CREDENTIALS.items():
        place = lowered.find(begin)
        while place >= 0:
            found = pattern.match(text, place)
            if found:
                yield found.span()
            place = lowered.find(begin, found.end() if found else place + len(begin))


def _lowered(text: str) -> str:
    """ASCII letters only: every character stays at its place."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _places(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + len(part))


def _names(text: str) -> Iterator[tuple[int, str]]:
    """Every name that may be secret, with the place where it ends."""
    lowered = _lowered(text)
    stems = [(place, place + len(stem)) for stem in _STEMS for place in _places(lowered, stem)]
    done = 0
    for found, end in sorted([*stems, *(match.span() for match in _NOT_ASCII.finditer(text))]):
        if found < done:
            continue
        start = found
        while start > done and found - start < _MAX_NAME and _NAME_SIGN.match(text[start - 1]):
            start -= 1
        while end < len(text) and end - start < _MAX_NAME and _NAME_SIGN.match(text[end]):
            end += 1
        name = text[start:end]
        if name not in FIELD_NAMES and (is_secret(name) or is_doubtful(name)):
            yield end, name
        done = end


def _value_after(text: str, place: int, is_sure: bool) -> tuple[int, int, str] | None:
    """From where to where the value of a name goes, and the quote to put around the mark."""
    found = _ASSIGNMENT.match(text, place) or _PAIR.match(text, place)
    if found is None:
        return None
    start, quote, sign = found.end(), found["quote"] or "", found.groupdict().get("sign")
    opening = _QUOTE.match(text, start)
    if not is_sure:
        word = _WORD.match(text, opening.end() if opening else start)
        return (word.start(), word.end(), "") if word and looks_random(word[0]) else None
    if opening:
        quote, stop = opening[0], _closing(text, opening)
        if sign is None and _MEMBER_NAME.match(text, stop):
            return None
    elif text[start : start + 1] in ("{", "["):
        stop = _balanced(text, start)
    elif sign is None:
        return None
    else:
        ends = _MEMBER_END if quote else _LINE_END if sign == ":" else _FORM_END
        stop = next(ends.finditer(text, start)).start()
    return (start, stop, quote) if stop > start else None


def _closes(found: re.Match[str], opening: re.Match[str]) -> bool:
    """JSON in a string of JSON has its quotes behind 1, 3, 7, ... backslashes; more stand for a quote inside."""
    level = len(opening[1])
    return found[2] == opening[2] and len(found[1]) % (2 * (level + 1)) == level


def _closing(text: str, opening: re.Match[str]) -> int:
    """Behind the quote that closes a value; the end of the text if none does."""
    ends = (found.end() for found in _QUOTE.finditer(text, opening.end()) if _closes(found, opening))
    return next(ends, len(text))


def _balanced(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`; the end of the text if none does."""
    depth, opening = 0, None
    for found in _BRACKET.finditer(text, start):
        if found[2]:
            if opening is None and found[2] == '"':
                opening = found
            elif opening is not None and _closes(found, opening):
                opening = None
        elif opening is None:
            depth += 1 if found[0] in "{[" else -1
            if depth == 0:
                return found.end()
    return len(text)
