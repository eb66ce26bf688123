"""A short form of `python -m tests.faults.heavy_readers`, for machines on which others run too."""

from pathlib import Path

from tests.faults.heavy_readers import run

# Without bounds all of them waited until everything that was asked had run out of its time: 60 s, and again after the
# load. What is allowed here is what other processes on this machine may take, which makes the quiet time longer, too.
HEALTH_SECONDS, PAGE_SECONDS, IDLE_SECONDS = 15.0, 30.0, 20.0


def test_one_key_that_asks_too_much_slows_itself_and_is_forgotten_when_it_leaves(tmp_path: Path) -> None:
    verdict = run(tmp_path, rows=200_000, seconds=8)
    assert set(verdict.abuser) <= {200, 429, 503, 504}
    assert verdict.abuser[429], "more was asked than one key may at a time"
    for phase in (verdict.quiet, verdict.load, verdict.after):
        assert set(phase.health.statuses) == set(phase.ready.statuses) == set(phase.page.statuses) == {200}
        assert set(phase.events.statuses) == {202}
    assert verdict.load.health.p99 < max(HEALTH_SECONDS, 50 * verdict.quiet.health.p99)
    assert verdict.load.page.median < max(PAGE_SECONDS, 4 * verdict.page_bound_seconds)
    assert verdict.idle_after_seconds < IDLE_SECONDS
    assert verdict.after.page.median < max(PAGE_SECONDS, 10 * verdict.quiet.page.median)
