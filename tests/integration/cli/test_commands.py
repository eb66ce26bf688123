"""The smaller commands: what they do, and the sentence they answer bad input with."""

import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.clickhouse.migration_files import read_migrations
from cli.main import main
from tests.support.insights import insights, processes_naming, query

HOLD = """
import sys
from aggregator.clickhouse.client import Warehouse
warehouse = Warehouse(sys.argv[1])
warehouse.create_database()
warehouse.query("SELECT 1")
print("open", flush=True)
sys.stdin.read()
"""
OLDER_MIGRATION = "INSERT INTO schema_migrations (number, name) VALUES (0, '0000_create_request_payloads')"
NOWHERE = "http://user:secret@127.0.0.1:1/insights"
AWAY = "ClickHouse at http://127.0.0.1:1 (INSIGHTS_CLICKHOUSE_URL) does not answer: [Errno 111] Connection refused"


def test_help_names_every_command_without_loading_what_they_need() -> None:
    shown = insights("--help")
    assert shown.returncode == 0
    for command in ("up", "demo", "replay", "migrate", "ingest", "api", "rollups"):
        assert f"│ {command} " in shown.stdout
    heavy = "import sys, cli.main; print([n for n in ('chdb', 'pyarrow', 'fastapi', 'aiokafka') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert insights("--version").stdout.startswith("router-insights ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "no-such-file", "--format", "events"], "'no-such-file' does not exist"),
        (["replay", "pyproject.toml", "--format", "csv"], "'csv' is not one of 'azure-llm', 'events'"),
        (["replay", "pyproject.toml"], "Missing option '--format'"),
        (["replay", "pyproject.toml", "--format", "events", "--speed", "0"], "--speed '0' must be max or a number"),
        (["replay", "pyproject.toml", "--format", "events", "--speed", "nan"], "--speed 'nan' must be max or a number"),
        (["replay", "pyproject.toml", "--format", "events", "--speed", "fast"], "--speed 'fast' must be max or a"),
        (["rollups", "verify", "--from", "yesterday"], "'yesterday' must be RFC 3339 with a zone"),
        (["rollups", "verify", "--to", "2026-01-31T12:00:00"], "'2026-01-31T12:00:00' must be RFC 3339 with a zone"),
        (["rollups", "verify", "--to", "2026-02-30"], "'2026-02-30' is not a date and time that exists"),
        (["rollups", "verify", "--from", "1969-12-31"], "'1969-12-31' must be from 1970-01-01"),
        (["rollups", "verify", "--from", "2026-02-01", "--to", "2026-02-01"], "must be before --to"),
        (["rollups", "rebuild", "--from", "2026-02-01"], "Missing option '--to'"),
        (["up", "--port", "0"], "'--port' (env var: 'INSIGHTS_PORT'): Input should be greater than or equal to 1"),
        (["up", "--port", "http"], "'--port' (env var: 'INSIGHTS_PORT'): Input should be a valid integer"),
        (["up", "--data-dir", ""], "--data-dir must not be empty"),
        (
            ["replay", "pyproject.toml", "--format", "events", "--bootstrap-servers", "http://kafka:9092"],
            "must be host:port",
        ),
        (["launch"], "No such command 'launch'"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_named_and_exits_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process: none of them gets far enough to do anything.
    monkeypatch.setattr(sys, "argv", ["insights", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["migrate"], {"INSIGHTS_CLICKHOUSE_URL": NOWHERE}, AWAY),
        (["rollups", "verify"], {"INSIGHTS_CLICKHOUSE_URL": NOWHERE}, AWAY),
        (["ingest"], {"INSIGHTS_CLICKHOUSE_URL": NOWHERE}, AWAY),
        (
            ["migrate"],
            {"INSIGHTS_CLICKHOUSE_URL": "mysql://user:secret@h/d"},
            "INSIGHTS_CLICKHOUSE_URL: clickhouse url 'mysql': allowed are http://, https:// and chdb:///directory",
        ),
        (
            ["migrate"],
            {"INSIGHTS_CLICKHOUSE_URL": "chdb://data"},
            "INSIGHTS_CLICKHOUSE_URL: clickhouse url: chdb:// needs",
        ),
        (
            ["migrate"],
            {"INSIGHTS_CLICKHOUSE_URL": "http://user:se/cret@h/d"},
            "INSIGHTS_CLICKHOUSE_URL: clickhouse url: the port must be a number up to 65535; / ? # @ in a password",
        ),
        (
            ["migrate"],
            {"INSIGHTS_CLICKHOUSE_URL": "chdb:///dev/null/data"},
            "Unable to open the chdb engine at '/dev/null/data': in create_directories: Not a directory",
        ),
        (
            ["ingest"],
            {"INSIGHTS_KAFKA_BOOTSTRAP_SERVERS": "a:9092,b:c"},
            "INSIGHTS_KAFKA_BOOTSTRAP_SERVERS: 'b:c' must be",
        ),
        (["api"], {}, "INSIGHTS_API_KEYS: Field required"),
        (["api"], {"INSIGHTS_API_KEYS": " , "}, "INSIGHTS_API_KEYS: must hold at least one key"),
        (["ingest"], {"INSIGHTS_FLUSH_ROWS": "0"}, "INSIGHTS_FLUSH_ROWS: Input should be greater than or equal to 1"),
        (["ingest"], {"INSIGHTS_FLUSH_SECONDS": "soon"}, "INSIGHTS_FLUSH_SECONDS: Input should be a valid number"),
        (
            ["replay", "pyproject.toml", "--format", "events", "--bootstrap-servers", "127.0.0.1:1"],
            {},
            "Kafka at 127.0.0.1:1 does not answer",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence_and_exits_1(
    arguments: list[str], settings: dict[str, str], said: str
) -> None:
    done = insights(*arguments, **settings)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"insights: {said}")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_migrate_says_what_it_would_do_does_it_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    settings = {"INSIGHTS_CLICKHOUSE_URL": f"chdb://{tmp_path}/clickhouse"}
    names = [migration.name for migration in read_migrations()]
    planned = insights("migrate", "--dry-run", **settings)
    assert planned.stdout.splitlines() == [f"would apply {name}" for name in names]
    assert insights("migrate", **settings).stdout.splitlines() == [f"applied {name}" for name in names]
    assert insights("migrate", **settings).stdout == "the database is up to date\n"
    assert insights("migrate", "--dry-run", **settings).stdout == "the database is up to date\n"


def test_rollups_that_drift_are_shown_then_rebuilt(tmp_path: Path) -> None:
    settings = {"INSIGHTS_CLICKHOUSE_URL": f"chdb://{tmp_path}/clickhouse"}
    insights("migrate", **settings)
    query(tmp_path, "INSERT INTO request_logs (timestamp, request_id) VALUES ('2026-01-31 12:00:00', 'r')")
    assert insights("rollups", "verify", **settings).returncode == 0
    query(tmp_path, "INSERT INTO rollup_model (bucket, requests) VALUES ('2026-01-31 12:00:00', 2)")
    drifted = insights("rollups", "verify", **settings)
    assert drifted.returncode == 1
    assert "requests 2" in drifted.stdout
    elsewhere = insights("rollups", "verify", "--from", "2026-02-01", "--to", "2026-03-01", **settings)
    assert elsewhere.returncode == 0
    rebuilt = insights("rollups", "rebuild", "--from", "2026-01-31", "--to", "2026-02-01", **settings)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "requests 2" not in rebuilt.stdout
    assert insights("rollups", "verify", **settings).returncode == 0


def test_a_database_that_was_not_migrated_is_met_with_what_to_run(tmp_path: Path) -> None:
    done = insights("dead-letters", "list", INSIGHTS_CLICKHOUSE_URL=f"chdb://{tmp_path}/clickhouse")
    assert done.returncode == 1
    assert "run insights migrate first (Code: 81" in done.stderr


def test_ingest_refuses_a_database_that_was_not_migrated(tmp_path: Path) -> None:
    done = insights("ingest", INSIGHTS_CLICKHOUSE_URL=f"chdb://{tmp_path}/clickhouse")
    assert done.returncode == 1
    assert "run insights migrate first" in done.stderr


def test_a_database_of_an_unreleased_version_is_refused_by_whoever_looks_at_migrations(tmp_path: Path) -> None:
    settings = {"INSIGHTS_CLICKHOUSE_URL": f"chdb://{tmp_path}/clickhouse"}
    assert insights("migrate", **settings).returncode == 0
    query(tmp_path, OLDER_MIGRATION)
    for arguments in (["migrate"], ["migrate", "--dry-run"], ["ingest"], ["aggregate"]):
        done = insights(*arguments, **settings)
        assert done.returncode == 1
        assert "it has the migration 0000_create_request_payloads) and cannot be upgraded" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_database_directory_that_another_process_has_open_is_named(tmp_path: Path) -> None:
    held = f"chdb://{tmp_path}/clickhouse"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        done = insights("migrate", INSIGHTS_CLICKHOUSE_URL=held)
    finally:
        holder.communicate()
    assert done.returncode == 1
    assert "another process, perhaps an insights up, has it open" in done.stderr
    assert not processes_naming(held)
