"""Kafka keeps what workers of every version have written, so these bytes do not change."""

from aiokafka import ConsumerRecord

from ingest.consumer.batch import Batch
from ingest.consumer.intent import CommitMetadata, WriteIntent

INTENT = WriteIntent(last=19, created_at_ms=1_700_000_000_123, generation=2, digest="d1")
STORED = '{"topic_id":"t","plan":{"last":19,"created_at_ms":1700000000123,"generation":2,"digest":"d1"}}'


def test_the_stored_metadata_keeps_its_bytes() -> None:
    with_intent = CommitMetadata(topic_id="t", intent=INTENT)
    assert with_intent.to_metadata() == STORED
    assert CommitMetadata.from_metadata(STORED) == with_intent
    without = CommitMetadata(topic_id="t")
    assert without.to_metadata() == '{"topic_id":"t","plan":null}'
    assert CommitMetadata.from_metadata('{"topic_id":"t","plan":null}') == without


def test_the_token_of_a_batch_keeps_its_bytes() -> None:
    records = [
        ConsumerRecord("events", 3, 7, 1_700_000_000_000, 0, b"k", b'{"a":1}', None, 1, 7, ()),
        ConsumerRecord("events", 3, 9, 1_700_000_000_005, 0, None, None, None, 0, 0, ()),
    ]
    batch = Batch("events", 3, records, created_at_ms=5, generation=1)
    assert batch.token == "events/3/7-9/d8e3dd10d5e9a8eb6db1eca0e4a8a8bb"
    assert batch.intent == WriteIntent(last=9, created_at_ms=5, generation=1, digest=batch.digest)
