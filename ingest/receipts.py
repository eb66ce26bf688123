"""Requests that wait until the worker of the same process has stored their records.

The publisher sends a receipt's header with each record; the worker gives back the records of every batch that it has
stored. Offsets would not do: a topic that is created again uses them a second time.
"""

import asyncio
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aggregator.errors import NotStoredError
from ingest.consumer.batch import Batch

HEADER = "insights-receipt"
ID_BYTES = 16
NUMBER = struct.Struct(">I")
# Shorter than INSIGHTS_REQUEST_TIMEOUT_SECONDS, so that the answer says what happened.
WAIT_SECONDS = 30.0
DELETED = "the data directory was deleted or replaced"


class Receipt:
    """The records of one request, by number, that are not stored yet."""

    def __init__(self, records: int) -> None:
        self.id = secrets.token_bytes(ID_BYTES)
        self.left = set(range(records))
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def headers(self, number: int) -> list[tuple[str, bytes]]:
        """The headers of record `number`, from 0."""
        return [(HEADER, self.id + NUMBER.pack(number))]

    def take(self, number: int) -> None:
        # A set, because a batch that is written again gives its records a second time.
        self.left.discard(number)
        if not self.left and not self.settled.done():
            self.settled.set_result(None)

    def fail(self, reason: str) -> None:
        if not self.settled.done():
            self.settled.set_exception(NotStoredError(reason))


class Receipts:
    """Who waits for what the worker stores; for one event loop.

    `next_offsets` has the offset after the last stored record of each partition. `unfinished` has the tokens of batches
    that the worker has begun to store and not reported as stored: some tables may lack them. `is_safe` says whether
    what was stored is still there; once it is not, every request fails.
    """

    def __init__(self, is_safe: Callable[[], bool] = lambda: True) -> None:
        self.next_offsets: dict[int, int] = {}
        self.unfinished: set[str] = set()
        self._is_safe = is_safe
        self._waiting: dict[bytes, Receipt] = {}
        self._refusal = ""

    @contextmanager
    def expect(self, records: int) -> Iterator[Receipt]:
        """A receipt for so many records, known inside the block. Raises NotStoredError after `refuse` and `fail`."""
        if self._refusal:
            raise NotStoredError(self._refusal)
        receipt = Receipt(records)
        self._waiting[receipt.id] = receipt
        try:
            yield receipt
        finally:
            del self._waiting[receipt.id]
            receipt.settled.cancel()
            # Python reports an error that nobody has looked at, as when it came before anybody waited.
            if not receipt.settled.cancelled():
                receipt.settled.exception()

    async def wait(self, receipt: Receipt) -> None:
        """Return when all records of the receipt are stored. Raises NotStoredError."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await receipt.settled
        except TimeoutError:
            raise NotStoredError(f"{len(receipt.left)} events were not stored within {WAIT_SECONDS:g} s") from None

    def begin(self, batch: Batch) -> None:
        """The batch is about to be stored."""
        self.unfinished.add(batch.token)

    def add(self, batch: Batch) -> None:
        """The batch is stored."""
        self.unfinished.discard(batch.token)
        self.next_offsets[batch.partition] = max(batch.next_offset, self.next_offsets.get(batch.partition, 0))
        if not self._waiting:
            return
        if not self._is_safe():
            self.fail(DELETED)
            return
        for record in batch.records:
            for name, value in record.headers:
                if name == HEADER and (receipt := self._waiting.get(value[:ID_BYTES])) is not None:
                    receipt.take(NUMBER.unpack(value[ID_BYTES:])[0])

    def refuse(self, reason: str) -> None:
        """Take no further requests; those that wait go on waiting."""
        self._refusal = self._refusal or reason

    def fail(self, reason: str) -> None:
        """Take no further requests, and answer those that wait that they are not stored."""
        self.refuse(reason)
        for receipt in self._waiting.values():
            receipt.fail(reason)

    async def settle(self) -> None:
        """Return when nobody waits any more."""
        while receipts := list(self._waiting.values()):
            await asyncio.wait([receipt.settled for receipt in receipts])
            # The requests themselves go on in their tasks.
            await asyncio.sleep(0)
