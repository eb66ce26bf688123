"""`insights up` as a person runs it: it starts, serves, stops, starts again, and leaves nothing behind."""

import asyncio
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.local_stack import drain
from cli.local_stack.broker import EmbeddedBroker
from cli.local_stack.process import free_port
from cli.local_stack.up import PARTITIONS
from ingest.topics.create import create_topics
from tests.integration.ingest.test_worker import events, produce
from tests.support.insights import (
    COMMAND,
    TIMEOUT_SECONDS,
    environment,
    insights,
    processes_naming,
    query,
    wait_until,
)
from tests.support.local_stack import EVENT, Up, running


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly_and_what_was_accepted_is_stored(data_dir: Path, number: signal.Signals) -> None:
    # Many batches of each partition, so that those in flight are not all that there is.
    with running(data_dir, INSIGHTS_FLUSH_ROWS="20") as up:
        up.send(*(f"r-{n}" for n in range(500)))
        # At once: nothing waits for the worker to have written them.
        up.process.send_signal(number)
        assert up.process.wait(timeout=TIMEOUT_SECONDS) == 0, up.output.read_text()
        wait_until(up.leaves_nothing)
    assert query(data_dir, "SELECT count() AS rows, uniqExact(request_id) AS ids FROM request_logs") == [
        {"rows": 500, "ids": 500}
    ]


ONCE = "SELECT count() AS rows, uniqExact(request_id) AS ids FROM request_logs"


def test_202_means_that_the_events_are_stored(data_dir: Path) -> None:
    """A moment later the power is gone; nothing else but the answer has told the client that they are safe."""
    with running(data_dir) as up:
        for life in range(3):
            up.send(*(f"r-{life}-{n}" for n in range(50)))
            up.process.kill()
            up.process.wait()
            up.restart()
            up.wait_until_ready()
        up.process.kill()
        up.process.wait()
    assert query(data_dir, ONCE) == [{"rows": 150, "ids": 150}]


def test_with_kafka_s_acknowledgement_202_is_sooner_and_no_promise(data_dir: Path) -> None:
    with running(data_dir, INSIGHTS_EVENTS_ACKED_BY="kafka", INSIGHTS_FLUSH_SECONDS="30") as up:
        up.send("r-1", "r-2")
        assert up.count() == 0
        up.process.kill()
        up.process.wait()
    assert query(data_dir, ONCE) == [{"rows": 0, "ids": 0}]


def test_an_unknown_acknowledgement_is_refused_with_those_that_are_known(data_dir: Path) -> None:
    done = insights("up", "--data-dir", data_dir, INSIGHTS_EVENTS_ACKED_BY="disk")
    assert done.returncode == 1
    assert done.stderr == "insights: INSIGHTS_EVENTS_ACKED_BY: Input should be 'kafka' or 'clickhouse'\n"
    done = insights("api", INSIGHTS_API_KEYS="ak-1", INSIGHTS_EVENTS_ACKED_BY="clickhouse")
    assert done.returncode == 1
    assert done.stderr == "insights: INSIGHTS_EVENTS_ACKED_BY: Input should be 'kafka'\n"


def test_many_requests_wait_side_by_side_and_a_stop_answers_them_all(data_dir: Path) -> None:
    async def post(client: httpx2.AsyncClient, number: int) -> int:
        status: int = (await client.post("/v1/events", content=EVENT % f"r-{number}")).status_code
        return status

    async def stop_while_all_wait(up: Up) -> list[int]:
        options: dict[str, Any] = {"headers": up.headers(), "trust_env": False, "timeout": 60}
        async with httpx2.AsyncClient(base_url=up.url, limits=httpx2.Limits(max_connections=None), **options) as client:
            # So many that no pool of threads could hold them.
            tasks = [asyncio.create_task(post(client, number)) for number in range(200)]
            while await up.accepted() < 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            assert not any(task.done() for task in tasks)
            assert (await client.get("/v1/request-logs/stats")).json()["total_count"] == 0
            up.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*tasks)

    # None is stored before the stop, which does not wait that long.
    with running(data_dir, INSIGHTS_FLUSH_SECONDS="60") as up:
        assert asyncio.run(stop_while_all_wait(up)) == [202] * 200
        assert up.process.wait(timeout=TIMEOUT_SECONDS) == 0, up.output.read_text()
    assert query(data_dir, ONCE) == [{"rows": 200, "ids": 200}]


def outcome(up: Up, request_id: str) -> int:
    """The status of an event's answer; 0 without an answer."""
    try:
        with up.http(key="ak-1") as client:
            status: int = client.post("/v1/events", content=EVENT % request_id, timeout=60).status_code
            return status
    except httpx2.HTTPError:
        return 0


@pytest.mark.parametrize("deleted", [".", "clickhouse"])
def test_a_data_directory_that_is_deleted_ends_it_with_a_sentence_and_nothing_is_accepted(
    data_dir: Path, deleted: str
) -> None:
    with running(data_dir, INSIGHTS_API_KEYS="ak-1") as up:
        assert outcome(up, "r-1") == 202
        shutil.rmtree(data_dir / deleted)
        # As fast as it can be asked: the process may not have noticed yet.
        outcomes = {outcome(up, f"r-2-{number}") for number in range(20)}
        assert outcomes <= {503, 0}
        assert up.process.wait(timeout=TIMEOUT_SECONDS) == 1
        assert f"insights: data directory {data_dir} was deleted or replaced while" in up.output.read_text()
        assert "Traceback" not in up.output.read_text()
        wait_until(up.leaves_nothing)


def limit_address_space() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (3_400 * 1024**2,) * 2)


@pytest.mark.parametrize("arguments", [["up"], ["rollups", "verify"]])
def test_too_little_address_space_is_named_at_the_start(data_dir: Path, arguments: list[str]) -> None:
    """The engine would hang with so much, and fail in another way with less."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(INSIGHTS_CLICKHOUSE_URL=f"chdb://{data_dir}", INSIGHTS_DATA_DIR=str(data_dir)),
        preexec_fn=limit_address_space,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("insights: this process may use 3,400 MB of address space, and ClickHouse's engine")
    assert "ulimit -v unlimited" in done.stderr


def test_killed_it_leaves_no_process(data_dir: Path) -> None:
    with running(data_dir) as up:
        assert processes_naming(f"127.0.0.1:{up.broker_port}")
        up.process.send_signal(signal.SIGKILL)
        assert up.process.wait(timeout=TIMEOUT_SECONDS) == -signal.SIGKILL
        wait_until(up.leaves_nothing)


def test_a_restart_keeps_rows_and_key_and_takes_the_same_events_as_new_ones(data_dir: Path) -> None:
    with running(data_dir) as up:
        up.send("r-1", "r-2")
        wait_until(lambda: up.count() == 2)
        key = (data_dir / "api-key").read_text()
        up.process.send_signal(signal.SIGKILL)
    with running(data_dir) as up:
        assert (data_dir / "api-key").read_text() == key
        assert up.count() == 2
        up.send("r-1", "r-2")
        wait_until(lambda: up.count() == 4)


def test_rollups_that_a_kill_has_left_behind_are_repaired_at_the_next_start(data_dir: Path) -> None:
    with running(data_dir) as up:
        up.send("r-1", "r-2")
        wait_until(lambda: up.count() == 2)
    # As if the kill had struck between the rows and this rollup.
    query(data_dir, "ALTER TABLE rollup_model DELETE WHERE 1 SETTINGS mutations_sync = 2")
    verify = ("rollups", "verify")
    settings = {"INSIGHTS_CLICKHOUSE_URL": f"chdb://{data_dir}/clickhouse"}
    assert insights(*verify, **settings).returncode == 1
    with running(data_dir) as up:
        assert "rollups_mended_after_a_kill" in up.output.read_text()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(timeout=TIMEOUT_SECONDS) == 0, up.output.read_text()
    assert insights(*verify, **settings).returncode == 0
    with running(data_dir) as up:
        assert "after_a_kill" not in up.output.read_text()


def test_configured_keys_win_and_are_not_printed(data_dir: Path) -> None:
    with running(data_dir, INSIGHTS_API_KEYS="ak-mine, ak-yours") as up:
        assert not (data_dir / "api-key").exists()
        assert "ak-mine" not in up.output.read_text()
        for key, status in (("ak-mine", 200), ("ak-yours", 200), ("ak-other", 401)):
            with up.http(key) as client:
                assert client.get("/v1/request-logs/stats").status_code == status


@pytest.mark.parametrize("option", ["--port", "--broker-port"])
def test_a_port_that_is_taken_is_named_with_the_option_that_changes_it(data_dir: Path, option: str) -> None:
    ports = {"--port": free_port(), "--broker-port": free_port()}
    with socket.create_server(("127.0.0.1", ports[option])):
        done = insights("up", "--data-dir", data_dir, *(part for pair in ports.items() for part in pair))
    assert done.returncode == 1
    assert done.stderr.startswith(f"insights: port {ports[option]} on 127.0.0.1 is taken by another program")
    assert option in done.stderr
    assert "Traceback" not in done.stderr
    assert not processes_naming(f"127.0.0.1:{ports['--broker-port']}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = insights("up", "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert done.stderr == f"insights: data directory {tmp_path / 'data'} cannot be used: Permission denied\n"


def test_a_path_that_is_a_file_or_holds_a_question_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = insights("up", "--data-dir", tmp_path / "file")
    assert done.returncode == 1
    assert done.stderr == f"insights: data directory {tmp_path / 'file'} cannot be used: File exists\n"
    done = insights("up", "--data-dir", tmp_path / "what?")
    assert done.returncode == 1
    assert "must not hold ? or #" in done.stderr


def test_it_ends_with_a_sentence_when_its_broker_dies(data_dir: Path) -> None:
    with running(data_dir) as up:
        brokers = processes_naming(f"127.0.0.1:{up.broker_port}")
        (pid,) = (pid for pid, command in brokers.items() if not command.startswith("/bin/sh"))
        os.kill(pid, signal.SIGKILL)
        assert up.process.wait(timeout=TIMEOUT_SECONDS) == 1
        assert "insights: the embedded broker has ended unexpectedly" in up.output.read_text()
        wait_until(up.leaves_nothing)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("up") / "data") as up:
        yield up


def test_a_log_says_where_the_key_it_makes_is_kept_and_only_its_owner_can_read_it(stack: Up) -> None:
    key = (stack.data_dir / "api-key").read_text().strip()
    assert key.startswith("ak-")
    assert stat.S_IMODE((stack.data_dir / "api-key").stat().st_mode) == 0o600
    shown = stack.output.read_text()
    assert key not in shown
    assert f"key      in {stack.data_dir / 'api-key'}" in shown
    assert f"http://127.0.0.1:{stack.port}/docs" in shown
    assert f"127.0.0.1:{stack.broker_port}, topic request-events with {PARTITIONS} partitions" in shown
    with stack.http() as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/readyz").json() == {"status": "ok"}


def test_a_second_one_on_the_same_directory_is_told_who_has_it(stack: Up) -> None:
    second = insights("up", "--data-dir", stack.data_dir, "--port", free_port(), "--broker-port", free_port())
    assert second.returncode == 1
    assert second.stderr == (
        f"insights: data directory {stack.data_dir} is in use by another insights up (process {stack.process.pid}):"
        " stop that one or choose another directory with --data-dir\n"
    )
    assert stack.count() == 0


@pytest.mark.parametrize("read_ms", [1, 200])
def test_all_that_the_broker_has_taken_is_counted_however_slowly_it_answers(
    monkeypatch: pytest.MonkeyPatch, read_ms: int
) -> None:
    monkeypatch.setattr(drain, "END_READ_MS", read_ms)

    async def taken(address: str) -> list[int]:
        await create_topics(address, {"some": PARTITIONS}, timeout_seconds=30)
        before = await drain.accepted_offsets(address, "some", PARTITIONS)
        await produce(address, "some", events(500))
        after = await drain.accepted_offsets(address, "some", PARTITIONS)
        return [sum(offsets.values()) for offsets in (before, after)]

    with EmbeddedBroker(free_port()) as broker:
        assert asyncio.run(taken(broker.address)) == [0, 500]
