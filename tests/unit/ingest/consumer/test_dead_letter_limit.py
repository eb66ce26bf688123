import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.consumer.batch import Batch
from ingest.consumer.dead_letter_limit import DeadLetterLimit, DeadLetterLimitError, DeadLetterWatch
from ingest.transform.decoder import Rejection
from tests.integration.ingest.test_sink import StoredRecord


def batch(verdicts: str, first: int = 0, partition: int = 0) -> tuple[Batch, list[Rejection]]:
    """A batch from a picture of it: `x` is a dead letter, `.` a valid event."""
    records = [StoredRecord(first + place, b"") for place in range(len(verdicts))]
    rejections = [Rejection(place, "json_invalid", "", "broken") for place, sign in enumerate(verdicts) if sign == "x"]
    return Batch("t", partition, records, 0, 0), rejections


def watch(in_a_row: int = 3, share: float = 1.0, window: int = 10) -> DeadLetterWatch:
    return DeadLetterWatch(DeadLetterLimit(in_a_row, share, window))


def longest_run(verdicts: str) -> int:
    return max(len(run) for run in verdicts.split("."))


@given(pieces=st.lists(st.text("x.", min_size=1, max_size=6), min_size=1, max_size=6), limit=st.integers(0, 5))
def test_a_run_is_found_however_it_is_cut_into_batches(pieces: list[str], limit: int) -> None:
    watching, first, is_stopped = watch(in_a_row=limit), 0, False
    for piece in pieces:
        try:
            watching.observe(*batch(piece, first))
        except DeadLetterLimitError:
            is_stopped = True
            break
        first += len(piece)
    assert is_stopped == (longest_run("".join(pieces)) > limit)


def test_partitions_have_runs_of_their_own() -> None:
    watching = watch(in_a_row=3)
    for partition in range(5):
        watching.observe(*batch("xxx", partition=partition))
    with pytest.raises(DeadLetterLimitError, match=r"4 records in a row of partition 2 .* json_invalid"):
        watching.observe(*batch("x", first=3, partition=2))


def test_a_batch_that_is_tried_again_counts_once() -> None:
    watching = watch(in_a_row=3)
    for _ in range(5):
        watching.observe(*batch("xx"))
    watching.observe(*batch("x", first=2))


def test_a_batch_past_the_limit_is_past_it_each_time() -> None:
    watching = watch(in_a_row=3)
    for _ in range(2):
        with pytest.raises(DeadLetterLimitError):
            watching.observe(*batch("xxxx"))


def test_the_share_is_judged_once_the_window_is_full_and_forgets_what_is_older() -> None:
    watching = watch(in_a_row=100, share=0.5, window=10)
    watching.observe(*batch("xxxx"))
    for first in (4, 14, 24):
        watching.observe(*batch("..........", first))
    watching.observe(*batch("xxxxx", 34))
    with pytest.raises(DeadLetterLimitError, match=r"6 of the last 11 records .* INSIGHTS_DEAD_LETTER_SHARE=0\.5"):
        watch(in_a_row=100, share=0.5, window=10).observe(*batch("xxxxxx....."))
