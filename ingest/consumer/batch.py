"""What is written at once: a run of one partition's records, and the token that makes it count once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ingest.consumer.intent import WriteIntent

if TYPE_CHECKING:
    from ingest.consumer.stored_records import StoredRecords


class Record(Protocol):
    """The part of a Kafka record that is used here (aiokafka's ConsumerRecord has it)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


# SHA-256 is what processors have instructions for: half the time of BLAKE2.
DIGEST_CHARS = 32


class PartitionLog(NamedTuple):
    """A partition of the topic that has this id: several topics may have had the name. The id is empty on a broker
    without topic ids."""

    topic: str
    topic_id: str
    partition: int


@dataclass(frozen=True)
class Batch:
    """Records `[first, last]` of one partition, in order; offsets may have gaps (compaction, transactions).

    `found_intent` is the intent that an earlier worker declared for it, if one did. `stored` says which records are not
    to be inserted because they are there under another token; None if none can be. `is_reread` says that the records
    may have been written before, in batches with other intents. `topic_id` is the topic's id.
    """

    topic: str
    partition: int
    records: Sequence[Record]
    created_at_ms: int
    generation: int
    topic_id: str = ""
    found_intent: WriteIntent | None = None
    stored: "StoredRecords | None" = None
    is_reread: bool = False

    @property
    def first(self) -> int:
        return self.records[0].offset

    @property
    def last(self) -> int:
        return self.records[-1].offset

    @property
    def next_offset(self) -> int:
        return self.last + 1

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self.created_at_ms / 1000, UTC)

    @cached_property
    def digest(self) -> str:
        """Of offsets, times and values. A topic that was deleted and created again starts at offset 0 again:
        with the offsets alone its records would be taken for the old ones and lost."""
        numbers = np.empty((len(self.records), 3), np.int64)
        numbers[:, 0] = [record.offset for record in self.records]
        numbers[:, 1] = [record.timestamp for record in self.records]
        numbers[:, 2] = [len(record.value or b"") for record in self.records]
        digest = hashlib.sha256(numbers.tobytes())
        for record in self.records:
            digest.update(record.value or b"")
        return digest.hexdigest()[:DIGEST_CHARS]

    @property
    def token(self) -> str:
        """Names the insert to ClickHouse; the same token is counted once, in the rows and in every rollup.

        The token of records that are read again is of this intent alone: a table that remembers the same batch, of
        which somebody has deleted rows since, would drop what is missing silently.
        """
        token = f"{self.topic}/{self.partition}/{self.first}-{self.last}/{self.digest}"
        return f"{token}/{self.created_at_ms}" if self.is_reread else token

    @property
    def intent(self) -> WriteIntent:
        # An intent that was found stays as it is, so that the next worker sees as well that records are missing.
        return self.found_intent or WriteIntent(
            last=self.last, created_at_ms=self.created_at_ms, generation=self.generation, digest=self.digest
        )
