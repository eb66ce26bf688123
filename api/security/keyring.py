"""The keys that the API accepts: those of its settings, and those of the database."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from aggregator.clickhouse.client import NOT_MIGRATED_CODES, DatabaseError, Warehouse, WarehouseUnavailableError
from aggregator.tables.api_keys import PREFIX, StoredKey, hash_of, stored_keys, write_uses
from api.errors import ApiError
from api.load.single_flight import SingleFlight
from api.security.permissions import Caller, Restriction, Scope

log = structlog.get_logger()

# A new key is accepted, and a revoked one refused, within this time.
REFRESH_SECONDS = 5.0
# From this age on the keys are read again while requests go on with those in memory: who asks often never waits.
AHEAD_SECONDS = 3.0
# When a read takes longer than this, requests go on with the keys that were read last.
WAIT_SECONDS = 2.0
# While ClickHouse is unavailable the keys that were read last stay in force, but not for longer than this.
STALE_SECONDS = 600.0
USES_SECONDS = 60.0


def caller_of(key: StoredKey) -> Caller | None:
    """None for a key that is revoked, and for one with a scope that this version does not know."""
    known = {scope.value for scope in Scope}
    if key.revoked_at is not None or not set(key.scopes) <= known:
        return None
    is_confined = key.user_id is not None or bool(key.api_key_ids)
    restriction = Restriction(key.user_id, tuple(key.api_key_ids)) if is_confined else None
    return Caller(key.name, frozenset(map(Scope, key.scopes)), restriction)


class KeyRing:
    """Callers by their key, in memory; a thread of its own reads those of the database.

    Keys are looked up by their SHA-256. The time that a lookup takes may depend on the hash. Whoever measures it learns
    at most parts of a hash, from which no key follows.
    """

    def __init__(self, own: Mapping[str, Caller], warehouse: Warehouse | None = None) -> None:
        # Clients put the documented prefix before any key, also before one that has none.
        with_prefix = {f"{PREFIX}{key}": caller for key, caller in own.items() if not key.startswith(PREFIX)}
        self._own = {hash_of(key): caller for key, caller in {**with_prefix, **own}.items()}
        self._warehouse = warehouse
        self._stored: dict[str, Caller] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._reads = SingleFlight("keys", self._refresh)
        self._uses: dict[str, datetime] = {}
        self._uses_written_at = time.monotonic()

    @classmethod
    def of_settings(cls, keys: Iterable[str], warehouse: Warehouse) -> "KeyRing":
        """Keys of INSIGHTS_API_KEYS have the scope admin."""
        admin = frozenset({Scope.ADMIN})
        return cls({key: Caller(f"setting {n}", admin) for n, key in enumerate(keys, start=1)}, warehouse)

    async def find(self, key: str) -> Caller | None:
        """Raises ApiError 503 when the stored keys were last read more than STALE_SECONDS ago."""
        if (own := self._own.get(hash_of(key))) is not None:
            return own
        await self._be_current()
        if self._warehouse and time.monotonic() - self._read_at > STALE_SECONDS:
            raise ApiError(503, "The keys cannot be read right now; try again later.")
        return self.look_up(key)

    def look_up(self, key: str) -> Caller | None:
        """Among the keys that were read last."""
        hashed = hash_of(key)
        caller = self._own.get(hashed) or self._stored.get(hashed)
        if caller is not None and hashed not in self._own:
            self._uses[hashed] = datetime.now(UTC)
        return caller

    async def _be_current(self) -> None:
        """Have the keys read again before they are old. Only where they are, or were never read, wait for it."""
        age = time.monotonic() - self._tried_at
        if self._warehouse is None or age < min(AHEAD_SECONDS, REFRESH_SECONDS):
            return
        if age < REFRESH_SECONDS:
            self._reads.start()
            return
        is_first = self._read_at == float("-inf")
        with suppress(TimeoutError):
            await self._reads.result(None if is_first else WAIT_SECONDS)

    def _refresh(self) -> None:
        """On the thread of the ring."""
        self._tried_at = time.monotonic()
        try:
            self._read()
        except DatabaseError as error:
            if error.code in NOT_MIGRATED_CODES:
                self._read_at = time.monotonic()  # there are no keys yet
            log.warning("keys cannot be read", error=str(error))
        except WarehouseUnavailableError as error:
            log.warning("keys cannot be read", error=str(error))

    def _read(self) -> None:
        if self._warehouse is None:
            return
        found = {key.key_hash: caller_of(key) for key in stored_keys(self._warehouse)}
        self._stored = {hashed: caller for hashed, caller in found.items() if caller is not None}
        self._read_at = time.monotonic()
        if self._uses and time.monotonic() - self._uses_written_at >= USES_SECONDS:
            uses, self._uses = self._uses, {}
            self._uses_written_at = time.monotonic()
            write_uses(self._warehouse, dict(uses))
