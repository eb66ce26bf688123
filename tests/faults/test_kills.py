"""A few kills of the one-machine stack, so that every change meets them; `make kills` has a hundred."""

from pathlib import Path

from tests.faults import kills


def test_what_was_answered_202_is_there_once_whatever_is_killed(tmp_path: Path) -> None:
    verdict = kills.run(tmp_path, kills=3, seed=7)
    assert verdict.is_clean, verdict
    assert verdict.kills == 3
    assert verdict.ledger.accepted
