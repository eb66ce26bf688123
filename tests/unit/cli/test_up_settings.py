"""Settings of `insights up` that have another default than where a part runs alone."""

from pathlib import Path

import pytest

from api.settings import ApiSettings
from cli.local_stack.data_dir import DataDir
from cli.local_stack.up import api_settings


def test_fewer_queries_run_at_a_time_where_clickhouse_shares_the_cores_with_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSIGHTS_MAX_QUERIES", raising=False)
    with DataDir(tmp_path / "data") as data:
        assert api_settings(data, "127.0.0.1", 8080).max_queries == 4 < ApiSettings(api_keys="k").max_queries
        monkeypatch.setenv("INSIGHTS_MAX_QUERIES", "3")
        assert api_settings(data, "127.0.0.1", 8080).max_queries == 3
