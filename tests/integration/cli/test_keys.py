"""`insights keys` and `insights audit`: what they print, store and refuse."""

import re
import sys

import pytest

from aggregator.clickhouse.client import Warehouse
from aggregator.tables.api_keys import KeyNameError, hash_of, stored_keys
from aggregator.tables.audit_log import Action, newest
from api.security.permissions import Scope
from cli.commands.audit import actor, run_audit
from cli.commands.keys import KeyRequestError, run_create, run_list, run_revoke
from cli.main import main


def test_a_key_is_printed_once_and_listed_by_its_beginning(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    run_create(warehouse, "finance [bold]", [Scope.READ_NO_BODIES], "ada", ["key-1"])
    shown = capsys.readouterr()
    key = shown.out.strip()
    assert re.fullmatch(r"ak-[\w-]{43}", key)
    assert "cannot be shown again" in shown.err
    assert stored_keys(warehouse)[0].key_hash == hash_of(key)
    run_list(warehouse, with_revoked=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if "finance [bold]" in line)
    for part in (f"{key[:9]}…", "read-no-bodies", "user ada, key key-1", actor()):
        assert part in line
    assert key not in line
    run_revoke(warehouse, "finance [bold]")
    capsys.readouterr()
    run_list(warehouse, with_revoked=False)
    assert "finance" not in capsys.readouterr().out
    run_list(warehouse, with_revoked=True)
    assert "finance [bold]" in capsys.readouterr().out
    assert [(entry.action, entry.target) for entry in newest(warehouse, 10)] == [
        (Action.REVOKE_KEY, "finance [bold]"),
        (Action.CREATE_KEY, "finance [bold]"),
    ]
    run_audit(warehouse, 10)
    out = capsys.readouterr().out
    assert "key.create" in out
    assert '"scopes": ["read-no-bodies"]' in out


@pytest.mark.parametrize(
    ("name", "scopes", "user", "api_keys", "said"),
    [
        ("", [Scope.READ], None, [], "1 to 100 printable"),
        ("a\nb", [Scope.READ], None, [], "1 to 100 printable"),
        ("x" * 101, [Scope.READ], None, [], "1 to 100 printable"),
        ("x", [Scope.READ], "", [], "must not be empty"),
        ("x", [Scope.READ], None, ["k", ""], "must not be empty"),
        ("x", [Scope.ADMIN], "ada", [], "only keys that read"),
        ("x", [Scope.READ, Scope.INGEST], None, ["k"], "only keys that read"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    warehouse: Warehouse, name: str, scopes: list[Scope], user: str | None, api_keys: list[str], said: str
) -> None:
    with pytest.raises(KeyRequestError, match=said):
        run_create(warehouse, name, scopes, user, api_keys)
    assert stored_keys(warehouse) == []


def test_a_scope_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["insights", "keys", "create", "x", "--scope", "write"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "'write' must be one of admin, read, read-no-bodies, ingest" in capsys.readouterr().err


def test_revoking_what_is_not_there_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(KeyNameError, match="insights keys list"):
        run_revoke(warehouse, "nobody")


def test_commands_that_change_what_others_see_are_written_down(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cli.adapters.clickhouse.open_warehouse", lambda url: warehouse)
    monkeypatch.setattr("aggregator.rollups.rebuild.SETTLE_SECONDS", 0.0)
    span = ["--from", "2026-01-01", "--to", "2026-01-02"]
    for arguments in (
        ["rollups", "rebuild", *span],
        ["reprice", *span, "--model", "gpt-5"],
        ["reprice", *span, "--dry-run"],
        ["dead-letters", "drop", "--yes", "--reason", "json_invalid"],
        ["dead-letters", "replay", "--bootstrap-servers", "127.0.0.1:1"],
        ["rollups", "verify"],
        ["dead-letters", "list"],
    ):
        monkeypatch.setattr(sys, "argv", ["insights", *arguments])
        with pytest.raises(SystemExit):
            main()
    capsys.readouterr()
    entries = list(reversed(newest(warehouse, 10)))
    assert [(entry.action, entry.target) for entry in entries] == [
        (Action.REBUILD_ROLLUPS, ""),
        (Action.REPRICE, "gpt-5"),
        (Action.DROP_DEAD_LETTERS, "json_invalid"),
        (Action.REPLAY_DEAD_LETTERS, ""),
    ]
    assert {entry.actor for entry in entries} == {actor()}
    assert "2026-01-01" in entries[0].details
