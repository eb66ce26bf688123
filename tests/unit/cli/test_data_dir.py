"""The data directory of the stack on one machine is its owner's alone."""

import os
from pathlib import Path

import pytest

from aggregator.running_stack import FILE, RunningStack, is_in_use
from cli.local_stack.data_dir import DataDir, DataDirError


def test_rows_are_closed_to_others_also_where_the_directory_was_there_before(tmp_path: Path) -> None:
    os.umask(0o022)
    old = tmp_path / "data"
    (old / "clickhouse").mkdir(parents=True)
    with DataDir(old) as data:
        data.api_key()
        assert (old / "clickhouse").stat().st_mode & 0o077 == 0
        assert data.key_file.stat().st_mode & 0o077 == 0
    with DataDir(tmp_path / "new") as data:
        assert data.path.stat().st_mode & 0o077 == 0
        assert data.rows.stat().st_mode & 0o077 == 0


def test_what_a_killed_stack_has_left_is_believed_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port may be another program's by now, of another user even."""
    asked: list[RunningStack] = []

    def answers(stack: RunningStack) -> bool:
        asked.append(stack)
        return True

    monkeypatch.setattr(RunningStack, "_answers", answers)
    left = RunningStack(
        clickhouse_url="http://insights:secret@127.0.0.1:1/insights",
        kafka_bootstrap_servers="k:1",
        api_url="http://127.0.0.1:1",
    )
    with DataDir(tmp_path) as data:
        left.write(data.path)
        assert RunningStack.find(tmp_path) == left
    left.write(tmp_path)
    assert not is_in_use(tmp_path)
    assert RunningStack.find(tmp_path) is None
    assert asked == [left]
    with DataDir(tmp_path) as data:
        assert is_in_use(tmp_path)
        assert not (tmp_path / FILE).exists()
        assert RunningStack.find(tmp_path) is None


def test_a_directory_is_of_one_stack_at_a_time(tmp_path: Path) -> None:
    with DataDir(tmp_path), pytest.raises(DataDirError, match=f"process {os.getpid()}"), DataDir(tmp_path):
        pass
    with DataDir(tmp_path):
        pass


def test_a_stop_that_leaves_a_batch_half_stored_counts_as_a_kill(tmp_path: Path) -> None:
    with DataDir(tmp_path) as data:
        data.has_half_stored = True
    with DataDir(tmp_path) as data:
        assert data.was_killed
    with DataDir(tmp_path) as data:
        assert not data.was_killed
