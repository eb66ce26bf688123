"""Looking after a stack that runs: every command reaches it by its data directory, and nobody else does."""

import itertools
import json
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from aggregator.running_stack import RunningStack
from tests.support.insights import insights, query, wait_until
from tests.support.local_stack import EVENT, Up, running

BROKEN = b"this is no event"
NOBODY = 65534


class Sender:
    """Sends events in the background, one request after the other, while commands run."""

    def __init__(self, up: Up) -> None:
        self._up = up
        self._stop = threading.Event()
        self.accepted = 0
        self.statuses: set[int] = set()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        with self._up.http() as client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                status = client.post("/v1/events", content=EVENT % f"live-{number}", timeout=60).status_code
                self.statuses.add(status)
                self.accepted += status == 202
                time.sleep(0.2)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("running") / "data") as up:
        up.send(*(f"r-{n}" for n in range(20)))
        yield up


@pytest.fixture
def ingesting(stack: Up) -> Iterator[Sender]:
    sender = Sender(stack)
    try:
        yield sender
        before = sender.accepted
        wait_until(lambda: sender.accepted > before)
    finally:
        sender.stop()
    assert sender.statuses == {202}


def ask(stack: Up, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that knows nothing but the data directory."""
    done = insights(*arguments, INSIGHTS_DATA_DIR=str(stack.data_dir))
    assert "Traceback" not in done.stderr, done.stderr
    return done


def found(stack: Up) -> RunningStack:
    running_stack = RunningStack.find(stack.data_dir)
    assert running_stack is not None
    return running_stack


MONTH = ("--from", "2026-01-01", "--to", "2026-02-01")
COMMANDS = [
    (["migrate", "--dry-run"], "up to date"),
    (["migrate"], "up to date"),
    (["keys", "list"], "no keys in the database"),
    (["retention", "show"], "for ever"),
    (["retention", "set", "--rows", "400", "--bodies", "400", "--yes"], "ClickHouse deletes"),
    (["retention", "set", "--rows", "forever", "--bodies", "forever", "--yes"], "ClickHouse deletes"),
    (["rollups", "verify"], "none"),
    (["rollups", "rebuild", *MONTH], "none"),
    (["reprice", *MONTH, "--dry-run"], "would change 0 rows"),
    (["reprice", *MONTH], "changed 0 rows"),
    (["dead-letters", "list"], "no dead letters"),
    (["dead-letters", "replay"], "sent 0 dead letters again"),
    (["dead-letters", "drop", "--yes"], "dropped 0 dead letters"),
    (["audit"], "rebuild"),
    (["prices", "list", "gpt-5-mini"], "gpt-5-mini"),
    (["budgets", "list"], "budget scope period"),
    (["doctor"], "no faults"),
]


def test_every_command_works_while_events_come_in(stack: Up, ingesting: Sender) -> None:
    for arguments, said in COMMANDS:
        done = ask(stack, *arguments)
        shown = " ".join(done.stdout.split())
        assert (done.returncode, done.stderr.strip() if arguments[0] == "keys" else "") == (0, ""), (arguments, done)
        assert said in shown, (arguments, shown)


def test_a_key_that_is_made_meanwhile_is_good_at_once_and_ends_when_it_is_revoked(stack: Up, ingesting: Sender) -> None:
    key = ask(stack, "keys", "create", "finance", "--scope", "read").stdout.strip()

    def status() -> int:
        with stack.http(key) as client:
            code: int = client.get("/v1/request-logs/stats").status_code
            return code

    wait_until(lambda: status() == 200, timeout_seconds=30)
    assert "finance" in ask(stack, "keys", "list").stdout
    assert ask(stack, "keys", "revoke", "finance").returncode == 0
    wait_until(lambda: status() == 401, timeout_seconds=30)


def test_events_that_are_replayed_and_budgets_go_to_the_broker_of_the_stack(
    stack: Up, ingesting: Sender, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(EVENT % f"replayed-{n}" for n in range(5)))
    assert ask(stack, "replay", file, "--format", "events").returncode == 0
    of_replay = "SELECT count() AS n FROM request_logs WHERE startsWith(request_id, 'replayed-')"
    wait_until(lambda: query_running(stack, of_replay) == [{"n": 5}])
    assert ask(stack, "budgets", "set", "monthly", "--limit", "250").returncode == 0
    assert "monthly" in ask(stack, "budgets", "list").stdout
    assert ask(stack, "prices", "explain", "--request", "replayed-1").stderr.startswith("insights: gpt-5-mini: no cost")


def query_running(stack: Up, sql: str) -> list[dict[str, object]]:
    return query(stack.data_dir, sql, found(stack).clickhouse_url)


def test_the_address_of_the_rows_leads_to_the_stack_as_well(stack: Up) -> None:
    done = insights("rollups", "verify", INSIGHTS_CLICKHOUSE_URL=f"chdb://{stack.data_dir}/clickhouse")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stack_that_was_killed_or_stopped_is_looked_after_on_its_disk(tmp_path: Path) -> None:
    with running(tmp_path / "data") as up:
        up.send("r-1")
        up.process.kill()
        up.process.wait()
        assert (up.data_dir / "running.json").exists()
        assert ask(up, "rollups", "verify").returncode == 0
        up.restart()
        up.wait_until_ready()
        up.process.terminate()
        assert up.process.wait(60) == 0
        assert not (up.data_dir / "running.json").exists()
        assert ask(up, "rollups", "verify").returncode == 0


REQUESTS = [
    ("GET", "/"), ("GET", "/ping"), ("GET", "/?query=SELECT+1"), ("POST", "/"), ("POST", "/?query=SELECT+1"),
    ("PUT", "/"), ("DELETE", "/"), ("OPTIONS", "/"), ("HEAD", "/"), ("GET", "/play"), ("GET", "/replicas_status"),
]  # fmt: skip


@pytest.mark.parametrize("given", [None, ("insights", ""), ("insights", "wrong"), ("default", ""), ("", "SECRET")])
def test_without_the_secret_nothing_is_answered(stack: Up, given: tuple[str, str] | None) -> None:
    parts = urlsplit(found(stack).clickhouse_url)
    auth = given and (given[0], given[1].replace("SECRET", parts.password or ""))
    with httpx2.Client(base_url=f"http://{parts.hostname}:{parts.port}", auth=auth, trust_env=False) as client:
        for method, path in REQUESTS:
            for headers in ({}, {"X-ClickHouse-User": "default"}, {"X-ClickHouse-Key": parts.password or ""}):
                body = b"SELECT 1" if method == "POST" else None
                response = client.request(method, path, content=body, headers=headers)
                assert response.status_code == 401, (method, path)
                assert b"1\n" not in response.content


def test_the_engine_listens_for_this_machine_alone_and_its_owner_alone_reads_the_secret(stack: Up) -> None:
    parts = urlsplit(found(stack).clickhouse_url)
    assert parts.hostname == "127.0.0.1"
    assert len(parts.password or "") >= 40
    file = stack.data_dir / "running.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(parts.password) not in stack.output.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_of_the_machine_learns_nothing(stack: Up) -> None:
    # Everybody may look into the directory, as where it was there before.
    for folder in (stack.data_dir, *stack.data_dir.parents[:3]):
        folder.chmod(0o755)
    for command in (["head", "-c1", "running.json"], ["head", "-c1", "api-key"], ["ls", "clickhouse"]):
        done = subprocess.run(command, user=NOBODY, cwd=stack.data_dir, capture_output=True, text=True, check=False)
        assert (done.returncode > 0, done.stdout) == (True, ""), command
        assert "Permission denied" in done.stderr


def test_the_commands_that_ask_the_api_find_it_with_its_key(stack: Up) -> None:
    answered = ask(stack, "request-logs", "stats")
    assert answered.returncode == 0, answered.stderr
    assert "total_count" in json.loads(answered.stdout)
