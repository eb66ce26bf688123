"""Keys of the database: what is stored of them, what they open, and how they end."""

import asyncio
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median

import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from aggregator.tables.api_keys import KeyNameError, create_key, hash_of, revoke_key, stored_keys, write_uses
from api.errors import ApiError
from api.security import keyring
from api.security.keyring import KeyRing
from api.security.permissions import Caller, Restriction, Scope
from tests.support.api import KEY, client_of, get
from tests.support.rows import insert_rows, random_rows

LOGS = "/v1/request-logs"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are read anew for every request."""
    monkeypatch.setattr(keyring, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(keyring, "USES_SECONDS", 0.0)


@pytest.fixture
def client(warehouse: Warehouse, at_once: None) -> Iterator[TestClient]:
    with client_of(warehouse) as client:
        yield client


def status_with(client: TestClient, key: str, path: str = LOGS) -> int:
    return client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code


def test_of_a_key_only_its_hash_is_stored(warehouse: Warehouse) -> None:
    key = create_key(warehouse, "reports", ["read"], "ada@laptop", "o'brien \\", ["key-1", "k'2"])
    assert re.fullmatch(r"ak-[\w-]{43}", key)
    (stored,) = stored_keys(warehouse)
    assert (stored.name, stored.prefix, stored.key_hash) == ("reports", key[:9], hash_of(key))
    assert (stored.user_id, list(stored.api_key_ids)) == ("o'brien \\", ["key-1", "k'2"])
    assert (list(stored.scopes), stored.created_by) == (["read"], "ada@laptop")
    assert (stored.last_used_at, stored.revoked_at) == (None, None)
    for table in ("api_keys", "audit_log"):
        assert key[9:] not in str(warehouse.query(f"SELECT * FROM {table}"))


def test_a_key_opens_what_it_was_made_for_until_it_is_revoked(warehouse: Warehouse, client: TestClient) -> None:
    insert_rows(warehouse, random_rows(3, 60))
    reader = create_key(warehouse, "alice reads", ["read"], "test", user_id="alice")
    sender = create_key(warehouse, "gateway", ["ingest"], "test")
    assert status_with(client, reader) == 200
    assert (status_with(client, sender), status_with(client, sender, "/v1/events/schema")) == (403, 503)
    logs = client.get(LOGS, headers={"Authorization": f"Bearer {reader}"}).json()["logs"]
    assert {log["user_id"] for log in logs} == {"alice"}
    revoke_key(warehouse, "alice reads", "test")
    assert status_with(client, reader) == 401
    assert status_with(client, KEY) == 200
    assert next(key for key in stored_keys(warehouse) if key.name == "alice reads").revoked_at is not None


async def test_revocation_takes_effect_within_the_time_that_is_stated(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create_key(warehouse, "short", ["read"], "test")
    monkeypatch.setattr(keyring, "REFRESH_SECONDS", 0.3)
    ring = KeyRing({}, warehouse)
    assert await ring.find(key) is not None
    revoke_key(warehouse, "short", "test")
    await asyncio.sleep(0.3)
    assert await ring.find(key) is None


def test_names_are_unique_among_keys_in_force(warehouse: Warehouse) -> None:
    first = create_key(warehouse, "reports", ["read"], "test")
    with pytest.raises(KeyNameError, match="already"):
        create_key(warehouse, "reports", ["admin"], "test")
    revoke_key(warehouse, "reports", "test")
    with pytest.raises(KeyNameError, match="no key in force"):
        revoke_key(warehouse, "reports", "test")
    assert create_key(warehouse, "reports", ["read"], "test") != first


def test_last_use_is_written_and_merged_across_processes(warehouse: Warehouse, client: TestClient) -> None:
    key = create_key(warehouse, "used", ["read"], "test")
    assert stored_keys(warehouse)[0].last_used_at is None
    before = datetime.now(UTC)
    assert status_with(client, key) == 200
    assert status_with(client, "ak-wrong") == 401
    used_at = stored_keys(warehouse)[0].last_used_at
    assert used_at is not None
    assert abs((used_at.replace(tzinfo=UTC) - before).total_seconds()) < 30
    write_uses(warehouse, {hash_of(key): datetime(2020, 1, 1, tzinfo=UTC)})
    assert stored_keys(warehouse)[0].last_used_at == used_at


def test_a_key_with_a_scope_of_a_later_version_opens_nothing(warehouse: Warehouse, client: TestClient) -> None:
    key = create_key(warehouse, "future", ["read", "teleport"], "test")
    assert status_with(client, key) == 401


async def test_known_keys_outlast_a_clickhouse_that_is_away_but_not_for_ever(
    warehouse: Warehouse, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create_key(warehouse, "steady", ["read"], "test", api_key_ids=["k"])
    ring = KeyRing({}, warehouse)
    expected = Caller("steady", frozenset({Scope.READ}), Restriction(None, ("k",)))
    assert await ring.find(key) == expected
    monkeypatch.setattr(ring, "_warehouse", Warehouse("http://127.0.0.1:1/insights"))
    assert await ring.find(key) == expected
    assert await ring.find("ak-wrong") is None
    monkeypatch.setattr(keyring, "STALE_SECONDS", 0.0)
    with pytest.raises(ApiError, match="cannot be read"):
        await ring.find(key)


def test_before_the_migration_the_keys_of_the_settings_work(empty_warehouse: Warehouse, at_once: None) -> None:
    empty_warehouse.create_database()
    with client_of(empty_warehouse) as client:
        assert get(client, "/v1/analytics/meta")
        assert status_with(client, "ak-wrong", "/v1/analytics/meta") == 401


def test_an_unknown_a_misspelt_and_a_revoked_key_are_answered_alike(warehouse: Warehouse, client: TestClient) -> None:
    """Nobody learns that a key was one once, or nearly is one."""
    revoked, known = (create_key(warehouse, name, ["read"], "test") for name in ("ended", "in force"))
    revoke_key(warehouse, "ended", "test")
    future = create_key(warehouse, "future", ["teleport"], "test")
    guesses = [revoked, future, known[:-1], f"{known}=", known.upper(), hash_of(known), known[:9], "ak-", "x", "ä"]
    told = set()
    for guess in guesses:
        answer = client.get(LOGS, headers={b"Authorization": f"Bearer {guess}".encode()})
        of_request = ("x-request-id", "date")
        headers = tuple(sorted((k, v) for k, v in answer.headers.items() if k not in of_request))
        told.add((answer.status_code, answer.text, headers))
    assert len(told) == 1
    assert status_with(client, known) == 200
    [(status, text, _)] = told
    assert status == 401
    assert "revoked" not in text


def test_guesses_of_every_kind_are_counted_until_the_address_is_shut_out(warehouse: Warehouse, at_once: None) -> None:
    """Keys that are in force, of the database or of the settings, pass all the same: others may share the address."""
    revoked, known = (create_key(warehouse, name, ["read"], "test") for name in ("ended", "in force"))
    revoke_key(warehouse, "ended", "test")
    with client_of(warehouse, wrong_key_limit="6/hour") as client:
        guesses = (revoked, "ak-unknown", known[:-1])
        assert [status_with(client, guess) for guess in guesses * 2] == [401] * 6
        answers = [client.get(LOGS, headers={"X-API-KEY": key, "Authorization": ""}) for key in guesses]
        assert [status_with(client, key) for key in (known, KEY)] == [200, 200]
    assert [answer.status_code for answer in answers] == [429] * 3
    assert all(int(answer.headers["Retry-After"]) > 3500 for answer in answers)
    assert {answer.json()["code"] for answer in answers} == {"rate_limited"}


async def test_the_time_to_refuse_a_key_does_not_depend_on_how_much_of_it_is_right(warehouse: Warehouse) -> None:
    """Interleaved, so that a busy machine slows all alike. A comparison that stops at the first difference takes
    longer the more is right; what is looked up here is a hash, in which every character changes everything. A revoked
    key, one of the settings and one of the database are looked up alike as well."""
    key, revoked = (create_key(warehouse, name, ["read"], "test") for name in ("timed", "ended"))
    revoke_key(warehouse, "ended", "test")
    own = f"{KEY}{'o' * (len(key) - len(KEY))}"
    ring = KeyRing({own: Caller("own", frozenset({Scope.ADMIN}))}, warehouse)
    guesses = {
        "nothing": "zz" + "z" * (len(key) - 2),
        "half": key[:23] + "z" * 23,
        "all but one": key[:-1] + "~",
        "all but one of a setting": own[:-1] + "~",
        "revoked": revoked,
    }
    await ring.find(key)
    times: dict[str, list[int]] = {name: [] for name in guesses}
    for _ in range(4000):
        for name, guess in guesses.items():
            started = time.perf_counter_ns()
            assert ring.look_up(guess) is None
            times[name].append(time.perf_counter_ns() - started)
    medians = [median(values) for values in times.values()]
    assert max(medians) < 1.25 * min(medians)
