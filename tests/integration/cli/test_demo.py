"""`insights demo` as a person runs it: the report, the last line, Ctrl-C, and nothing left behind."""

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from cli.demo.api_client import ApiClient
from tests.support.insights import TIMEOUT_SECONDS, insights, processes_naming, start_insights, wait_until

REQUESTS = 3_000


class Demo:
    """A running demo, whose data and processes name `folder`."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.process = start_insights("demo", *arguments, output=self.output, TMPDIR=str(folder))

    def stack(self) -> dict[int, str]:
        """The supervisor and the `insights up` that it runs."""
        return {pid: line for pid, line in processes_naming(str(self.folder)).items() if "cli.main up" in line}

    def _option(self, name: str) -> str:
        (value,) = {line.split(f"{name} ")[1].split()[0] for line in self.stack().values()}
        return value

    def broker(self) -> str:
        """How the command line of the stack's broker names its address."""
        return f"tcp://127.0.0.1:{self._option('--broker-port')}"

    def is_in_the_middle(self) -> bool:
        """Whether some requests are answered already."""
        (key_file,) = self.folder.glob("*/data/api-key")
        try:
            with ApiClient(f"http://127.0.0.1:{self._option('--port')}", key_file.read_text().strip()) as client:
                return client.stats("status").total_count > 0
        except httpx2.TransportError:
            return False

    def last_line(self) -> str:
        lines = self.output.read_text().splitlines()
        return lines[-1] if lines else ""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def run(*arguments: object) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield run
    for demo in started:
        demo.process.kill()
        demo.process.wait()


def test_a_demo_agrees_with_itself_and_ends_with_one_json_object(tmp_path: Path) -> None:
    done = insights("demo", "--requests", REQUESTS, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert list(told) == [
        *("events", "rows", "rollup_requests", "cost", "unpriced"),
        *("dead_lettered", "seconds", "events_per_second"),
    ]
    assert told["events"] == told["rows"] == told["rollup_requests"] == REQUESTS
    assert Decimal(told["cost"]) > 1
    assert isinstance(told["cost"], str)
    assert 0 < told["unpriced"] < REQUESTS / 10
    assert told["dead_lettered"] == 1
    assert told["events_per_second"] == pytest.approx(REQUESTS / told["seconds"], rel=0.01)
    assert "everything agrees" in done.stdout
    assert "✗" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_kept_it_runs_on_for_the_lines_it_prints_until_ctrl_c(start: Callable[..., Demo]) -> None:
    demo = start("--requests", REQUESTS, "--keep", "--seed", 9)
    wait_until(lambda: demo.last_line().startswith("{"))
    broker = demo.broker()
    lines = re.findall(r"^  (curl .*)$", demo.output.read_text(), re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        answer = json.loads(subprocess.run([*shlex.split(line), "-s"], capture_output=True, check=True).stdout)
        assert answer["total_count"] > 0
    assert demo.process.poll() is None
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(timeout=TIMEOUT_SECONDS) == 0
    assert json.loads(demo.last_line())["rows"] == REQUESTS
    assert not processes_naming(broker)
    assert os.listdir(demo.folder) == ["output"]


@pytest.fixture
def started(start: Callable[..., Demo]) -> Demo:
    """A demo with much to do, whose broker runs already."""
    demo = start("--requests", 2_000_000)
    wait_until(lambda: list(demo.folder.glob("*/data/api-key")))
    wait_until(lambda: processes_naming(demo.broker()))
    return demo


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_it_starts_leaves_neither_processes_nor_files(started: Demo, number: signal.Signals) -> None:
    broker = started.broker()
    started.process.send_signal(number)
    assert started.process.wait(timeout=TIMEOUT_SECONDS) == 128 + number
    wait_until(lambda: not started.stack() and not processes_naming(broker))
    assert os.listdir(started.folder) == ["output"]
    assert "Traceback" not in started.output.read_text()


def test_ctrl_c_in_the_middle_leaves_neither_processes_nor_files(started: Demo) -> None:
    wait_until(started.is_in_the_middle)
    broker = started.broker()
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(timeout=TIMEOUT_SECONDS) == 128 + signal.SIGINT
    wait_until(lambda: not started.stack() and not processes_naming(broker))
    assert os.listdir(started.folder) == ["output"]
    assert "Traceback" not in started.output.read_text()


def test_killed_in_the_middle_it_leaves_no_process(started: Demo) -> None:
    wait_until(started.is_in_the_middle)
    broker = started.broker()
    started.process.send_signal(signal.SIGKILL)
    started.process.wait()
    wait_until(lambda: not started.stack() and not processes_naming(broker))
    assert not processes_naming(str(started.folder))


def test_the_number_of_requests_must_make_sense() -> None:
    done = insights("demo", "--requests", 0)
    assert done.returncode == 2
    assert "--requests" in done.stderr
