"""The publisher of events that come in over HTTP, against a real broker."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aggregator.errors import EventProblem, InvalidEventsError, NotStoredError
from ingest import receipts as receipts_module
from ingest.consumer.batch import Batch
from ingest.producer.event_publisher import MAX_PROBLEMS, KafkaEventPublisher
from ingest.receipts import Receipts
from ingest.topics.create import create_topics
from router_insights.emitter.event_emitter import EventEmitter
from router_insights.errors import KafkaUnavailableError
from tests.support.kafka import PATIENCE_SECONDS, KafkaServer, TansuServer, has_idempotence, read_topic


def an_event(request_id: str = "req-1", **fields: Any) -> dict[str, Any]:
    return {"request_id": request_id, "timestamp": 1_763_719_200_000, "model_name": "m", "status": "success", **fields}


def emitter(address: str, topic: str, **options: Any) -> EventEmitter:
    return EventEmitter(address, topic=topic, enable_idempotence=has_idempotence(), **options)


@asynccontextmanager
async def publisher(address: str, topic: str, **options: Any) -> AsyncIterator[KafkaEventPublisher]:
    opened = KafkaEventPublisher(address, topic, **options)
    try:
        yield opened
    finally:
        await opened.close()


def ndjson(*events: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(event) for event in events).encode()


async def problems_of(address: str, topic: str, body: bytes, is_ndjson: bool = True) -> list[EventProblem]:
    """What the publisher finds wrong; nothing of the body may be on the topic afterwards."""
    async with publisher(address, topic, max_event_bytes=10_000) as events:
        with pytest.raises(InvalidEventsError) as caught:
            await events.publish(body, is_ndjson)
    assert await read_topic(address, topic) == []
    return caught.value.problems


async def test_one_object_is_one_event_under_its_request_id_as_it_came(broker: str, topic: str) -> None:
    body = json.dumps(an_event("réq", not_a_field=1), indent=2).encode()
    async with publisher(broker, topic) as events:
        assert await events.publish(body, is_ndjson=False) == 1
        (record,) = await read_topic(broker, topic)
    assert record.key.decode() == "réq"
    assert record.value == body


async def test_every_line_is_an_event_and_all_are_in_kafka_before_the_answer(broker: str, topic: str) -> None:
    lines = [ndjson(an_event(f"req-{number}")) for number in range(500)]
    async with publisher(broker, topic, max_pending=100) as events:
        assert await events.publish(b"\r\n\n  \n".join(lines) + b"\n", is_ndjson=True) == 500
        records = await read_topic(broker, topic)
    assert sorted(record.value for record in records) == sorted(lines)


async def test_one_bad_line_keeps_all_others_out_and_is_named(broker: str, topic: str) -> None:
    body = b"\n" + ndjson(an_event("a"), an_event("b", tags=["x", 5], input_tokens=-1), an_event("c"))
    problems = await problems_of(broker, topic, body)
    assert problems == [
        EventProblem(3, "input_tokens", "Input should be greater than or equal to 0"),
        EventProblem(3, "tags[1]", "Input should be a valid string"),
    ]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        pytest.param(b"{", "", "Invalid JSON", id="not JSON"),
        pytest.param(b"[]", "", "Input should be an object", id="not an object"),
        pytest.param(b"\xff", "", "Invalid JSON", id="not UTF-8"),
        pytest.param(ndjson(an_event(timestamp="today")), "timestamp", "must be RFC 3339", id="a wrong time"),
        pytest.param(ndjson(an_event(metadata={"a": "\0"})), "metadata", "holds a NUL character", id="a NUL"),
        pytest.param(ndjson(an_event(request_id="")), "request_id", "at least 1 character", id="an empty id"),
        pytest.param(
            ndjson(an_event(cached_input_tokens=5)), "", "must include cached", id="tokens that do not add up"
        ),
        pytest.param(ndjson(an_event(request_body="x" * 10_000)), "", "more than the 10,000 allowed", id="too large"),
    ],
)
async def test_what_is_wrong_with_a_line_is_said(
    broker: str, topic: str, body: bytes, field: str, message: str
) -> None:
    (problem,) = await problems_of(broker, topic, body)
    assert (problem.line, problem.field) == (1, field)
    assert message in problem.message


async def test_a_missing_field_is_named(broker: str, topic: str) -> None:
    problems = await problems_of(broker, topic, b'{"request_id": "a", "status": "success"}', is_ndjson=False)
    assert {(problem.field, problem.message) for problem in problems} == {
        ("timestamp", "Field required"),
        ("model_name", "Field required"),
    }


@pytest.mark.parametrize("body", [b"", b" \r\n\n"], ids=["empty", "blank"])
async def test_a_body_without_events_is_refused(broker: str, topic: str, body: bytes) -> None:
    for is_ndjson in (True, False):
        assert await problems_of(broker, topic, body, is_ndjson) == [EventProblem(1, "", "the body holds no event")]


async def test_the_list_of_problems_has_an_end(broker: str, topic: str) -> None:
    problems = await problems_of(broker, topic, b"{\n" * 1000)
    assert [problem.line for problem in problems] == list(range(1, MAX_PROBLEMS + 1))


async def test_an_invalid_body_says_the_first_problem_in_its_message(broker: str, topic: str) -> None:
    async with publisher(broker, topic) as events:
        second = b'{"request_id": "a", "timestamp": 1800000000000, "model_name": "m"}'
        with pytest.raises(InvalidEventsError, match=r"^line 2: status: Field required$"):
            await events.publish(ndjson(an_event()) + b"\n" + second, True)


async def test_bodies_that_come_at_once_do_not_wait_for_each_other_s_faults(broker: str, topic: str) -> None:
    async with publisher(broker, topic) as events:
        bodies = [ndjson(an_event(f"req-{number}")) if number % 2 else b"{" for number in range(20)]
        outcomes = await asyncio.gather(*(events.publish(body, True) for body in bodies), return_exceptions=True)
        records = await read_topic(broker, topic)
    assert [outcome for outcome in outcomes if outcome == 1] == [1] * 10
    assert sum(isinstance(outcome, InvalidEventsError) for outcome in outcomes) == 10
    assert len(records) == 10


async def test_kafka_s_absence_is_reported_with_the_number_of_events_that_it_did_not_take(
    own_broker: KafkaServer | TansuServer,
) -> None:
    await create_topics(own_broker.address, {"t": 1}, timeout_seconds=PATIENCE_SECONDS)
    async with publisher(own_broker.address, "t", delivery_timeout_seconds=3) as events:
        assert await events.publish(ndjson(an_event()), True) == 1
        own_broker.kill9()
        with pytest.raises(KafkaUnavailableError, match=r"^2 events did not reach Kafka") as caught:
            await events.publish(ndjson(an_event("a"), an_event("b")), True)
        assert caught.value.failed_keys == [b"a", b"b"]


def test_the_schema_is_that_of_an_event() -> None:
    schema = KafkaEventPublisher("localhost:9092", "t").schema()
    assert schema["required"] == ["request_id", "timestamp", "model_name", "status"]
    assert schema["title"] == "RequestEvent"


@asynccontextmanager
async def awaited_publisher(address: str, topic: str, receipts: Receipts) -> AsyncIterator[KafkaEventPublisher]:
    opened = KafkaEventPublisher(address, topic, receipts)
    try:
        yield opened
    finally:
        await opened.close()


async def batches_of(address: str, topic: str, count: int) -> list[Batch]:
    """The records of the topic once there are `count`, as a worker would write them: a batch for each partition."""
    while len(records := await read_topic(address, topic)) < count:  # noqa: ASYNC110 - a broker
        await asyncio.sleep(0.01)
    by_partition: dict[int, list[Any]] = {}
    for record in records:
        by_partition.setdefault(record.partition, []).append(record)
    return [Batch(topic, partition, records, 0, 0) for partition, records in by_partition.items()]


async def test_a_body_waits_for_its_last_record_and_not_for_those_of_others(broker: str, topic: str) -> None:
    receipts = Receipts()
    async with awaited_publisher(broker, topic, receipts) as events:
        first = asyncio.create_task(events.publish(ndjson(*(an_event(f"a-{n}") for n in range(30))), True))
        before = await batches_of(broker, topic, 30)
        second = asyncio.create_task(events.publish(ndjson(an_event("b")), True))
        after = await batches_of(broker, topic, 31)
        # A batch that is written twice, as after a rebalance, stands for no other.
        for batch in (before[0], before[0], *before[1:-1]):
            receipts.add(batch)
        await asyncio.sleep(0.1)
        assert not first.done()
        receipts.add(before[-1])
        assert await first == 30
        assert not second.done()
        for batch in after:
            receipts.add(batch)
        assert await second == 1


async def test_events_that_are_not_stored_in_time_are_reported(
    broker: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts_module, "WAIT_SECONDS", 0.2)
    async with awaited_publisher(broker, topic, Receipts()) as events:
        with pytest.raises(NotStoredError, match=r"^2 events were not stored within 0.2 s$"):
            await events.publish(ndjson(an_event("a"), an_event("b")), True)


async def test_a_stop_takes_no_more_events_and_waits_for_those_that_it_has(broker: str, topic: str) -> None:
    receipts = Receipts()
    async with awaited_publisher(broker, topic, receipts) as events:
        waiting = asyncio.create_task(events.publish(ndjson(an_event("a")), True))
        batches = await batches_of(broker, topic, 1)
        receipts.refuse("stopping")
        with pytest.raises(NotStoredError, match="stopping"):
            await events.publish(ndjson(an_event("b")), True)
        settled = asyncio.create_task(receipts.settle())
        await asyncio.sleep(0.1)
        assert not settled.done()
        receipts.add(batches[0])
        assert await waiting == 1
        await settled
    assert len(await read_topic(broker, topic)) == 1


async def test_a_failure_reaches_everybody_who_waits(broker: str, topic: str) -> None:
    receipts = Receipts()
    async with awaited_publisher(broker, topic, receipts) as events:
        waiting = [asyncio.create_task(events.publish(ndjson(an_event(f"{n}")), True)) for n in range(5)]
        await batches_of(broker, topic, 5)
        receipts.fail("the worker has ended")
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, NotStoredError)
        await receipts.settle()


async def test_what_is_stored_in_a_directory_that_is_gone_is_not_stored(broker: str, topic: str) -> None:
    receipts = Receipts(is_safe=lambda: False)
    async with awaited_publisher(broker, topic, receipts) as events:
        waiting = asyncio.create_task(events.publish(ndjson(an_event("a")), True))
        batches = await batches_of(broker, topic, 1)
        receipts.add(batches[0])
        with pytest.raises(NotStoredError, match="data directory was deleted"):
            await waiting
