"""Stops a worker when most records are no valid events: then the producer is broken, not the records."""

import threading
from collections import deque
from dataclasses import dataclass

from ingest.consumer.batch import Batch
from ingest.transform.decoder import Rejection


class DeadLetterLimitError(Exception):
    """Too many records in a row, or too large a share of them, are no valid events. The batch is not written, so
    nothing is lost: repair the producer (or raise the limit) and start the worker again."""


@dataclass(frozen=True)
class DeadLetterLimit:
    """How many dead letters a worker still takes for bad luck.

    `in_a_row` dead letters of one partition without a valid event between them; `share` (0 to 1) of the last
    `window_records` records, once there have been as many.
    """

    in_a_row: int
    share: float
    window_records: int


NO_LIMIT = DeadLetterLimit(in_a_row=2**63, share=1.0, window_records=1)


class DeadLetterWatch:
    """Counts the dead letters of a worker against a limit; may be called from several threads."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._in_a_row: dict[int, int] = {}
        self._window: deque[tuple[int, int]] = deque()
        self._seen: dict[int, str] = {}

    def observe(self, batch: Batch, rejections: list[Rejection]) -> None:
        """Count a batch before it is written; a batch that is tried again counts once.

        Raises DeadLetterLimitError when it goes past the limit.
        """
        with self._lock:
            if self._seen.get(batch.partition) == batch.token:
                return
            in_a_row = self._longest_run(batch, [rejection.row_index for rejection in rejections])
            records, rejected = self._slide(len(batch.records), len(rejections))
            if in_a_row > self._limit.in_a_row:
                raise DeadLetterLimitError(
                    f"{in_a_row:,} records in a row of partition {batch.partition} up to offset {batch.last} are no"
                    f" valid events, more than INSIGHTS_DEAD_LETTERS_IN_A_ROW={self._limit.in_a_row};"
                    f" the last reason: {_reason(rejections[-1])}"
                )
            if records >= self._limit.window_records and rejected > self._limit.share * records:
                raise DeadLetterLimitError(
                    f"{rejected:,} of the last {records:,} records are no valid events, more than"
                    f" INSIGHTS_DEAD_LETTER_SHARE={self._limit.share:g}; the last reason:"
                    f" {_reason(rejections[-1]) if rejections else 'none in this batch'}"
                )
            self._seen[batch.partition] = batch.token

    def _longest_run(self, batch: Batch, rejected: list[int]) -> int:
        """The longest run that the batch has or ends; the run at its end goes on in the next batch."""
        run, longest, expected = self._in_a_row.get(batch.partition, 0), 0, 0
        for row_index in rejected:
            run = run + 1 if row_index == expected else 1
            expected = row_index + 1
            longest = max(longest, run)
        self._in_a_row[batch.partition] = run if expected == len(batch.records) else 0
        return longest

    def _slide(self, records: int, rejected: int) -> tuple[int, int]:
        """Records and dead letters of the newest batches that together make up the window."""
        self._window.append((records, rejected))
        total = sum(count for count, _ in self._window)
        while total - self._window[0][0] >= self._limit.window_records:
            total -= self._window.popleft()[0]
        return total, sum(bad for _, bad in self._window)


def _reason(rejection: Rejection) -> str:
    place = f" in {rejection.field}" if rejection.field else ""
    return f"{rejection.reason}{place} ({rejection.message})"
