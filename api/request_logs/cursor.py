"""Keyset pagination: a token says after which row the next page starts, never how many rows to skip.

A token is base64url of a JSON array: format version, the cursor, the total, and a digest over these and the
query they belong to. The digest detects damage and tokens of other queries. It is no secret: a
forged token can only move the cursor within what its holder may read anyway.
"""

import base64
import hashlib
import json
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter

from api.errors import invalid_argument

VERSION: Literal[1] = 1
# The range of DateTime64(6); also keeps a forged token within Int64.
Micros = Annotated[int, Field(ge=0, lt=2**52)]
Millis = Annotated[int, Field(ge=0, lt=2**42)]


class Cursor(NamedTuple):
    """The last row of a page: its value of the order column (None: unknown, or the order is by time),
    then what makes a row unique."""

    value: Annotated[int, Field(ge=0, lt=2**32)] | None
    timestamp_us: Micros
    request_id: str
    created_at_ms: Millis
    source_partition: Annotated[int, Field(ge=0, lt=2**32)]
    source_offset: Annotated[int, Field(ge=0, lt=2**64)]


class PageTotal(NamedTuple):
    logs: Annotated[int, Field(ge=0)]
    is_approximate: bool


class _Token(NamedTuple):
    version: Literal[1]
    cursor: Cursor
    total: PageTotal
    digest: str


_TOKEN = TypeAdapter(_Token, config=ConfigDict(strict=True))


def _digest(query: dict[str, Any], cursor: Cursor, total: PageTotal) -> str:
    text = json.dumps([VERSION, query, cursor, total], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode(query: dict[str, Any], cursor: Cursor, total: PageTotal) -> str:
    """The token for the page after `cursor`; `query` is whatever must stay the same between pages, as JSON."""
    token = _Token(VERSION, cursor, total, _digest(query, cursor, total))
    return _base64url(_TOKEN.dump_json(token))


def decode(query: dict[str, Any], text: str) -> tuple[Cursor, PageTotal]:
    """What `encode` was given. Raises ApiError 400 for any text that `encode` did not make for `query`."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        token = _TOKEN.validate_json(data)
    except ValueError:
        raise _refused() from None
    # Several texts decode to the same bytes; only the one that `encode` made is valid.
    if text != _base64url(data) or token.digest != _digest(query, token.cursor, token.total):
        raise _refused()
    return token.cursor, token.total


def _refused() -> Exception:
    return invalid_argument(
        "page_token", "is damaged, or belongs to a query with other filters or another order; start at the first page"
    )
