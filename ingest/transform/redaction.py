"""Secrets never reach storage: the values of credential headers are replaced by a mark.

The same pattern serves header names and raw bytes.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MARK = "[redacted]"

# authorization, proxy-authorization, cookie, set-cookie, x-api-key, x-goog-api-key, x-auth-token, client-secret, ...
# but not x-ratelimit-remaining-tokens: the last word has to be exactly one of these.
SECRET_NAME = r"(?:[a-z0-9_-]*[-_])?(?:authorization|cookie|api[-_]?key|token|secret|password)"  # noqa: S105 -- a pattern

_NAME = re.compile(SECRET_NAME, re.IGNORECASE)

_RAW_SECRET = re.compile(
    rb'("' + SECRET_NAME.encode() + rb'"\s*:\s*)'
    rb'(?:"(?:[^"\\]|\\.)*"?|\[[^\]]*\]?|[^\s,}\]"\[{][^\s,}\]]*)',
    re.IGNORECASE | re.DOTALL,
)


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def redact_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers with the values of secret ones, at any depth, replaced by `MARK`."""
    return {name: MARK if is_secret(name) else _redact_value(value) for name, value in headers.items()}


def _redact_value(value: Any) -> Any:
    if isinstance(value, dict):
        return redact_headers(value)
    if isinstance(value, list):
        return [_redact_value(item) for item in value]
    return value


def redact_bytes(raw: bytes) -> bytes:
    """A rejected record with the values of secret-looking keys replaced; every other byte stays as it was.

    Works on JSON that cannot be parsed too, as far as its keys can be recognised. Only where a secret is an
    object, in JSON that can be parsed, the record is serialised again.
    """
    masked = _RAW_SECRET.sub(rb'\1"' + MARK.encode() + rb'"', raw)
    try:
        value = json.loads(masked)
    except (ValueError, RecursionError):
        return masked
    redacted = _redact_value(value)
    return masked if redacted == value else json.dumps(redacted, ensure_ascii=False).encode("utf-8", "surrogatepass")
