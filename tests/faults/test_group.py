"""Answers of a coordinator that must not be taken for what they are not; the scenarios meet real ones."""

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.commit import OffsetCommitResponse_v3, OffsetFetchResponse_v3
from aiokafka.structs import OffsetAndMetadata

from ingest.consumer.assignment import StartingPoint, starting_point
from ingest.consumer.group_coordinator import _codes, _offsets_in
from ingest.consumer.intent import CommitMetadata, WriteIntent

LOADING = 14
INTENT = WriteIntent(last=19, created_at_ms=1, generation=0, digest="d")


def test_an_error_of_the_whole_answer_is_seen_though_it_names_no_partition() -> None:
    assert list(_codes(OffsetFetchResponse_v3(0, [], LOADING))) == [LOADING]


def test_an_error_of_one_partition_is_seen() -> None:
    assert LOADING in list(_codes(OffsetCommitResponse_v3(0, [("t", [(0, 0), (1, LOADING)])])))


def test_offsets_come_with_their_metadata() -> None:
    answer = OffsetFetchResponse_v3(0, [("t", [(0, 5, "m", 0), (1, -1, "", 0)])], 0)
    assert list(_codes(answer)) == [0, 0, 0]
    found = {TopicPartition("t", 0): OffsetAndMetadata(5, "m"), TopicPartition("t", 1): OffsetAndMetadata(-1, "")}
    assert _offsets_in(answer) == found


@pytest.mark.parametrize(
    ("offset", "metadata", "expected"),
    [
        pytest.param(-1, "", StartingPoint(3, None, None), id="nothing committed: the beginning"),
        pytest.param(10, "", StartingPoint(10, None, None), id="set by another tool"),
        pytest.param(10, "not ours", StartingPoint(10, None, None), id="another tool's metadata"),
        pytest.param(10, CommitMetadata(topic_id="a").to_metadata(), StartingPoint(10, None, 0), id="committed"),
        pytest.param(
            10,
            CommitMetadata(topic_id="a", intent=INTENT).to_metadata(),
            StartingPoint(10, INTENT, 0),
            id="with an intent",
        ),
        pytest.param(
            10,
            CommitMetadata(topic_id="a", intent=INTENT, stored_before=99, reread_before=120).to_metadata(),
            StartingPoint(10, INTENT, 99, 120),
            id="behind offsets that were set back",
        ),
        pytest.param(
            10,
            CommitMetadata(topic_id="old", intent=INTENT).to_metadata(),
            StartingPoint(3, None, None),
            id="of a topic that is gone",
        ),
    ],
)
def test_a_partition_goes_on_where_its_commit_says(offset: int, metadata: str, expected: StartingPoint) -> None:
    assert starting_point(0, OffsetAndMetadata(offset, metadata), topic_id="a", beginning=3) == expected
