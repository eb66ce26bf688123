"""The data directory of the stack on one machine is its owner's alone."""

import os
from pathlib import Path

from cli.local_stack.data_dir import DataDir


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
