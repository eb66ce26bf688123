"""The committed offsets of the consumer group, read whole and written only as the member that was assigned.

aiokafka's own calls fall short of the delivery protocol in three ways, so these go to the coordinator directly:
- its commit takes generation and member id from whatever is current when a request is built. After a rebalance a
  commit that was waiting goes out under the new generation, and for a member that was expelled as generation -1,
  which Kafka accepts from anybody while the group is empty: both can set offsets of another worker back;
- its reading drops the metadata, or (admin client) takes the error "coordinator is loading" for "nothing committed",
  after which a partition would be read from its beginning again.

This uses private members of aiokafka; tests/unit/ingest/test_aiokafka_privates.py lists the only files that may.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    RequestTimedOutError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata

from ingest.consumer.topic_id import TopicIdRequest, id_in

RETRY_SECONDS = 0.1
READ_SECONDS = 30.0
CLOSE_SECONDS = 0.3
_COORDINATOR_MOVED = (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, RequestTimedOutError)
_FENCED = (IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class PartitionLostError(Exception):
    """The partition belongs to another worker now; that one writes the batch by its committed intent."""


@dataclass(frozen=True)
class Member:
    """This worker in one generation of the group; Kafka accepts its commits until the next generation."""

    generation: int
    member_id: str


class GroupCoordinator:
    """The consumer's group, through the connection that the consumer itself uses for it."""

    def __init__(self, consumer: AIOKafkaConsumer, group_id: str) -> None:
        self._consumer = consumer
        self._group_id = group_id

    @property
    def _coordinator(self) -> Any:
        return self._consumer._coordinator

    @property
    def member(self) -> Member:
        """This worker in the current generation: read it when partitions are assigned."""
        return Member(self._coordinator.generation, self._coordinator.member_id)

    async def read(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets with their metadata; -1 where there is none. Raises KafkaError after READ_SECONDS."""
        request = OffsetFetchRequest(self._group_id, list(_by_topic({tp: tp.partition for tp in partitions})))
        deadline = asyncio.get_running_loop().time() + READ_SECONDS
        while True:
            try:
                return _offsets_in(await self._send(request))
            except KafkaError as error:
                if not error.retriable or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def commit(self, member: Member, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit as `member`, and retry while Kafka cannot take it; the caller bounds the time.

        Raises PartitionLostError when this worker is no longer `member` of the group, UnknownTopicOrPartitionError
        when the topic was deleted, KafkaError for an error that is not retriable.
        """
        commits = {tp: (tp.partition, offset.offset, offset.metadata) for tp, offset in offsets.items()}
        request = OffsetCommitRequest(
            self._group_id, member.generation, member.member_id, OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(_by_topic(commits)),
        )  # fmt: skip
        while True:
            if self.member != member:
                raise PartitionLostError("the group has rebalanced")
            try:
                await self._send(request)
                return
            except _FENCED as error:
                raise PartitionLostError(str(error) or type(error).__name__) from error
            except KafkaError as error:
                if not error.retriable or isinstance(error, UnknownTopicOrPartitionError):
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def _send(self, request: Any) -> Any:
        """Raises KafkaError for the first error in the response, be it about one partition or the group."""
        await self._coordinator.ensure_coordinator_known()
        response = await self._coordinator._send_req(request)
        for code in _codes(response):
            if code:
                error = for_code(code)()
                if isinstance(error, _COORDINATOR_MOVED):
                    self._coordinator.coordinator_dead()
                raise error
        return response

    async def close_connections(self) -> None:
        """Close the connections of a consumer that could not be stopped in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._consumer._client.close()

    async def topic_id(self, partition: TopicPartition) -> str:
        """The id of the partition's topic as its leader knows it; empty on a broker without topic ids.

        Records that were fetched before this call are of the topic with this id or an earlier one, because the request
        goes to the leader that they were fetched from. Raises KafkaError, also while there is no such topic.
        """
        client = self._consumer._client
        leader = client.cluster.leader_for_partition(partition)
        if leader is None or leader < 0:
            await client.force_metadata_update()
            raise UnknownTopicOrPartitionError
        try:
            return id_in(await client.send(leader, TopicIdRequest(partition.topic)))
        except NotImplementedError:
            return ""


def _by_topic(values: Mapping[TopicPartition, Any]) -> Iterator[tuple[str, list[Any]]]:
    grouped = defaultdict(list)
    for partition, value in values.items():
        grouped[partition.topic].append(value)
    yield from grouped.items()


def _codes(response: Any) -> Iterator[int]:
    """Every error code in a response about offsets."""
    yield getattr(response, "error_code", 0)
    for _, partitions in response.topics:
        yield from (partition[-1] for partition in partitions)


def _offsets_in(response: Any) -> dict[TopicPartition, OffsetAndMetadata]:
    return {
        TopicPartition(topic, partition): OffsetAndMetadata(offset, metadata)
        for topic, partitions in response.topics
        for partition, offset, metadata, _ in partitions
    }
