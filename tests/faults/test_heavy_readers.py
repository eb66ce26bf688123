"""A short form of `python -m tests.faults.heavy_readers`, for machines on which others run too."""

from pathlib import Path

from tests.faults.heavy_readers import run

# Without bounds, health checks and the other key's page waited until everything that was asked had been answered or
# had run out of its time: for minutes.
HEALTH_SECONDS, PAGE_SECONDS, IDLE_SECONDS = 3.0, 15.0, 15.0


def test_one_key_that_asks_too_much_slows_itself_and_is_forgotten_when_it_leaves(tmp_path: Path) -> None:
    verdict = run(tmp_path, rows=200_000, seconds=8)
    assert set(verdict.abuser) <= {200, 429, 503, 504}
    assert verdict.abuser[429], "more was asked than one key may at a time"
    for phase in (verdict.quiet, verdict.load, verdict.after):
        assert set(phase.health.statuses) == set(phase.ready.statuses) == set(phase.page.statuses) == {200}
        assert set(phase.events.statuses) == {202}
    assert verdict.load.health.median < HEALTH_SECONDS / 3
    assert verdict.load.health.p99 < HEALTH_SECONDS
    assert verdict.load.page.median < max(PAGE_SECONDS, 10 * verdict.page_bound_seconds)
    assert verdict.idle_after_seconds < IDLE_SECONDS
    assert verdict.after.page.median < max(PAGE_SECONDS / 3, 5 * verdict.quiet.page.median)
