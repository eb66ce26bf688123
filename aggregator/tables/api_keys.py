"""The stored keys of the API: their hashes only. Rows are never changed; a revocation is a row of its own."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import InsightsError

PREFIX = "ak-"
# 256 bits from the system's source: nothing to guess, so a fast hash without salt is enough.
SECRET_BYTES = 32
# Enough to distinguish keys in a list; 228 bits stay unknown.
SHOWN_CHARACTERS = len(PREFIX) + 6

INSERT_KEY = """
INSERT INTO api_keys (key_hash, name, prefix, scopes, user_id, api_key_ids, created_by) SETTINGS async_insert = 0
VALUES ({key_hash:String}, {name:String}, {prefix:String}, {scopes:Array(String)}, {user_id:Nullable(String)},
{api_key_ids:Array(String)}, {created_by:String})
"""
REVOKE = """
INSERT INTO api_key_revocations (key_hash, revoked_by) SETTINGS async_insert = 0
SELECT key_hash, {revoked_by:String} FROM api_keys
WHERE name = {name:String} AND key_hash NOT IN (SELECT key_hash FROM api_key_revocations)
"""
READ = """
SELECT toString(api_keys.key_hash) AS key_hash, name, prefix, scopes, user_id, api_key_ids, created_at, created_by,
    if(uses.key_hash = '', NULL, uses.at) AS last_used_at,
    if(ends.key_hash = '', NULL, ends.at) AS revoked_at
FROM api_keys
LEFT JOIN (SELECT toString(key_hash) AS key_hash, max(last_used_at) AS at FROM api_key_uses GROUP BY key_hash) AS uses
    ON uses.key_hash = toString(api_keys.key_hash)
LEFT JOIN (SELECT toString(key_hash) AS key_hash, min(revoked_at) AS at FROM api_key_revocations GROUP BY key_hash)
    AS ends ON ends.key_hash = toString(api_keys.key_hash)
ORDER BY created_at, name
"""
WRITE_USES = """
INSERT INTO api_key_uses (key_hash, last_used_at) SETTINGS async_insert = 0
SELECT use.1, fromUnixTimestamp64Milli(use.2, 'UTC')
FROM (SELECT arrayJoin(arrayZip({hashes:Array(String)}, {moments_ms:Array(Int64)})) AS use)
"""


class KeyNameError(InsightsError):
    """A key in force has the name already, or no key in force has it."""


@dataclass(frozen=True)
class StoredKey:
    key_hash: str
    name: str
    prefix: str
    scopes: Sequence[str]
    user_id: str | None
    api_key_ids: Sequence[str]
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    revoked_at: datetime | None


def hash_of(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def stored_keys(warehouse: Warehouse) -> list[StoredKey]:
    """Every key, revoked ones included, oldest first."""
    return [StoredKey(**row) for row in warehouse.query(READ)]


def create_key(
    warehouse: Warehouse,
    name: str,
    scopes: Iterable[str],
    created_by: str,
    user_id: str | None = None,
    api_key_ids: Iterable[str] = (),
) -> str:
    """A new key. Only its hash is stored, so the caller has the only copy. Raises KeyNameError for a name in use."""
    if any(key.name == name and key.revoked_at is None for key in stored_keys(warehouse)):
        raise KeyNameError(f"there is a key named {name!r} already; revoke it first, or choose another name")
    key = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    warehouse.command(
        INSERT_KEY,
        {
            "key_hash": hash_of(key),
            "name": name,
            "prefix": key[:SHOWN_CHARACTERS],
            "scopes": list(scopes),
            "user_id": user_id,
            "api_key_ids": list(api_key_ids),
            "created_by": created_by,
        },
    )
    return key


def revoke_key(warehouse: Warehouse, name: str, revoked_by: str) -> None:
    """Revoke the key, which cannot be undone. Raises KeyNameError when no key in force has the name."""
    if not any(key.name == name and key.revoked_at is None for key in stored_keys(warehouse)):
        raise KeyNameError(f"no key in force is named {name!r}; insights keys list names them")
    warehouse.command(REVOKE, {"name": name, "revoked_by": revoked_by})


def write_uses(warehouse: Warehouse, last_used: Mapping[str, datetime]) -> None:
    """Store when keys were last used; `last_used` is by hash."""
    moments = [int(moment.astimezone(UTC).timestamp() * 1000) for moment in last_used.values()]
    warehouse.command(WRITE_USES, {"hashes": list(last_used), "moments_ms": moments})
