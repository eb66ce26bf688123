"""The real trace goes through the real stack and comes out to the last token, twice."""

import os
from functools import partial
from pathlib import Path

import pytest

from aggregator.clickhouse.tables import REQUEST_LOGS
from aggregator.rollups.measures import ROLLUPS
from cli.demo.api_client import ApiClient
from cli.local_stack.process import UpProcess
from tests.support.checkout import ROOT
from tests.support.insights import insights, query, wait_until

TRACE_DIR = Path(os.environ.get("INSIGHTS_TRACE_DIR", ROOT.parent / "shared" / "data"))
FILES = [TRACE_DIR / "azure_llm_2023_conv.csv", TRACE_DIR / "azure_llm_2023_code.csv"]
REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = 28_185, 40_421_844, 4_334_561

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in FILES), reason=f"the trace's files are not in {TRACE_DIR} (INSIGHTS_TRACE_DIR)"
)


def replay(stack: UpProcess) -> None:
    done = insights("replay", *FILES, "--format", "azure-llm", "--bootstrap-servers", stack.broker)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("28,185 requests sent in ")


def covers(client: ApiClient, group_by: str, requests: int) -> bool:
    return client.stats(group_by).total_count >= requests


def assert_answers(stack: UpProcess, times: int) -> None:
    """GET stats, by every group there is, comes to `times` the trace."""
    with stack.client() as client:
        for group_by in ("model", "user", "api_key", "status", "hour", "day"):
            # Each group waits for itself: the tables of one insert come to be seen one after the other.
            wait_until(partial(covers, client, group_by, times * REQUESTS))
            stats = client.stats(group_by)
            wanted = (times * REQUESTS, times * INPUT_TOKENS, times * OUTPUT_TOKENS)
            assert (stats.total_count, stats.total_input_tokens, stats.total_output_tokens) == wanted
            assert sum(group.count for group in stats.stats) == times * REQUESTS
            assert sum(group.input_tokens for group in stats.stats) == times * INPUT_TOKENS
            assert sum(group.output_tokens for group in stats.stats) == times * OUTPUT_TOKENS


def assert_stored(data_dir: Path, times: int) -> None:
    """Raw rows and every rollup hold `times` the trace, and nothing else was kept."""
    sums = "toUInt64(sum(input_tokens)) AS input_tokens, toUInt64(sum(output_tokens)) AS output_tokens"
    tables = [f"SELECT count() AS requests, uniqExact(request_id) AS ids, {sums} FROM {REQUEST_LOGS}"]
    tables += [f"SELECT sum(requests) AS requests, {REQUESTS} AS ids, {sums} FROM {rollup.table}" for rollup in ROLLUPS]
    wanted = {
        "requests": times * REQUESTS,
        "ids": REQUESTS,
        "input_tokens": times * INPUT_TOKENS,
        "output_tokens": times * OUTPUT_TOKENS,
    }
    assert query(data_dir, " UNION ALL ".join(tables)) == [wanted] * len(tables)
    assert query(data_dir, "SELECT count() AS found FROM dead_letters") == [{"found": 0}]
    verified = insights("rollups", "verify", INSIGHTS_CLICKHOUSE_URL=f"chdb://{data_dir}/clickhouse")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_trace_is_kept_over_a_restart_and_counts_again_when_it_is_sent_again(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with UpProcess(data_dir) as stack:
        replay(stack)
        assert_answers(stack, times=1)
    assert_stored(data_dir, times=1)
    # The broker of this second stack begins at offset 0 again, with records of the same bytes.
    with UpProcess(data_dir) as stack:
        assert_answers(stack, times=1)
        replay(stack)
        assert_answers(stack, times=2)
    assert_stored(data_dir, times=2)
