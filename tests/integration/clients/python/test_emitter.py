"""The event emitter against a real broker, the broker's absence and its sudden end."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ingest.topics.create import create_topics
from router_insights import (
    EventEmitter,
    EventTooLargeError,
    InvalidEventError,
    KafkaUnavailableError,
    RequestEvent,
    SyncEventEmitter,
)
from tests.support.kafka import (
    PATIENCE_SECONDS,
    KafkaServer,
    TansuServer,
    free_port,
    has_idempotence,
    read_topic,
    stack,
)

# Less than the 40 s for which aiokafka tries by itself.
BOUND_SECONDS = 30
# Long enough for a broker that runs, on a machine that is busy otherwise.
DELIVERY_SECONDS = 3


def an_event(request_id: str = "req-1", **fields: Any) -> dict[str, Any]:
    return {"request_id": request_id, "timestamp": 1_763_719_200_000, "model_name": "m", "status": "success", **fields}


def emitter(address: str, topic: str, **options: Any) -> EventEmitter:
    return EventEmitter(address, topic=topic, enable_idempotence=has_idempotence(), **options)


def sync_emitter(address: str, topic: str, **options: Any) -> SyncEventEmitter:
    return SyncEventEmitter(address, topic=topic, enable_idempotence=has_idempotence(), **options)


async def test_an_event_arrives_whole_under_its_request_id(broker: str, topic: str) -> None:
    event = an_event("réq-😀", request_body={"text": "naïve 漢字 \u2028", "none": None}, tags=["ü"])
    async with emitter(broker, topic) as events:
        await events.emit(event)
    (record,) = await read_topic(broker, topic)
    assert record.key.decode() == "réq-😀"
    assert json.loads(record.value) == {**event, "timestamp": "2025-11-21T10:00:00Z"}
    assert RequestEvent.model_validate_json(record.value) == RequestEvent.model_validate(event)


async def test_an_event_object_is_sent_as_a_mapping_is(broker: str, topic: str) -> None:
    async with emitter(broker, topic) as events:
        await events.emit(an_event())
        await events.emit(RequestEvent.model_validate(an_event()))
    first, second = await read_topic(broker, topic)
    assert first.value == second.value
    assert first.key == second.key


async def test_bytes_are_sent_as_they_are_and_without_a_key_go_to_every_partition(broker: str, topic: str) -> None:
    async with emitter(broker, topic) as events:
        for number in range(6):
            await events.emit_raw(None, b"%d" % number)
    records = await read_topic(broker, topic)
    assert sorted(record.value for record in records) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert {record.partition for record in records} == {0, 1, 2}


async def test_events_of_one_key_keep_their_order(broker: str, topic: str) -> None:
    async with emitter(broker, topic, max_pending=50) as events:
        for number in range(1500):
            await events.emit_raw(b"key-%d" % (number % 7), b"%d" % number)
    by_key = defaultdict(list)
    for record in await read_topic(broker, topic):
        by_key[record.key].append(int(record.value))
    assert by_key == {b"key-%d" % key: list(range(key, 1500, 7)) for key in range(7)}


async def test_the_buffer_never_holds_more_events_than_it_may(broker: str, topic: str) -> None:
    seen = []
    async with emitter(broker, topic, max_pending=3) as events:
        for number in range(40):
            await events.emit_raw(b"%d" % number, b"x")
            seen.append(events.pending)
    assert max(seen) == 3
    assert len(await read_topic(broker, topic)) == 40


async def test_the_buffer_s_bound_holds_for_many_tasks_that_emit_at_once(broker: str, topic: str) -> None:
    seen = []
    async with emitter(broker, topic, max_pending=5) as events:

        async def emit_one(number: int) -> None:
            await events.emit_raw(b"%d" % number, b"x")
            seen.append(events.pending)

        await asyncio.gather(*(emit_one(number) for number in range(100)))
    assert max(seen) == 5
    assert len(await read_topic(broker, topic)) == 100


async def test_the_buffer_is_full_when_its_bytes_are(broker: str, topic: str) -> None:
    seen = []
    async with emitter(broker, topic, max_pending_bytes=1000) as events:
        for _ in range(10):
            await events.emit_raw(b"k", b"x" * 500)
            seen.append(events.pending)
    assert max(seen) == 2


async def test_flush_returns_when_everything_is_acknowledged(broker: str, topic: str) -> None:
    async with emitter(broker, topic) as events:
        for number in range(1000):
            await events.emit(an_event(f"req-{number}"))
        await events.flush(PATIENCE_SECONDS)
        assert events.pending == 0
        assert len(await read_topic(broker, topic)) == 1000
        await events.flush()


async def test_an_invalid_mapping_is_refused_before_anything_is_sent(broker: str, topic: str) -> None:
    async with emitter(broker, topic) as events:
        with pytest.raises(InvalidEventError, match=r"^input_tokens: .*; tags\[1\]: ") as caught:
            await events.emit(an_event(input_tokens=-1, tags=["a", 5]))
        assert [one.field for one in caught.value.details] == ["input_tokens", "tags[1]"]
        with pytest.raises(InvalidEventError, match=r"the event: input_tokens .* must include cached_input_tokens"):
            await events.emit(an_event(cached_input_tokens=1))
        with pytest.raises(InvalidEventError, match="the event: has text that Unicode cannot encode"):
            await events.emit(an_event(request_body={"text": "\ud800"}))
        assert events.pending == 0
    assert await read_topic(broker, topic) == []


async def test_an_event_over_the_size_limit_is_refused_with_both_sizes(broker: str, topic: str) -> None:
    async with emitter(broker, topic, max_event_bytes=300_000) as events:
        with pytest.raises(EventTooLargeError, match="has 300,001 bytes, more than the 300,000 allowed"):
            await events.emit_raw(b"k", b"x" * 300_000)
        await events.emit_raw(b"k", b"x" * 299_999)  # larger than a batch
    assert len(await read_topic(broker, topic)) == 1


async def test_an_emitter_says_when_it_is_not_started_or_closed(broker: str, topic: str) -> None:
    events = emitter(broker, topic)
    with pytest.raises(RuntimeError, match="the event emitter is not started"):
        await events.emit(an_event())
    async with events:
        pass
    await events.close()
    with pytest.raises(RuntimeError, match="the event emitter is closed"):
        await events.emit(an_event())


async def test_a_task_that_waits_for_room_hears_of_the_close(broker: str, topic: str) -> None:
    async with emitter(broker, topic, max_pending=1) as events:
        await events.emit(an_event())
        waiting = asyncio.create_task(events.emit(an_event()))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        await waiting


async def test_nothing_listening_is_a_clear_error_within_a_bound() -> None:
    address, began = f"127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(KafkaUnavailableError, match=f"Kafka at {address} does not answer"):
        await emitter(address, "any", delivery_timeout_seconds=2).start()
    assert time.monotonic() - began < BOUND_SECONDS


@pytest.mark.skipif(stack() == "embedded", reason="Tansu makes every topic it is asked about")
async def test_a_topic_that_does_not_exist_is_named(broker: str) -> None:
    with pytest.raises(KafkaUnavailableError, match="has no topic no-such-topic"):
        await emitter(broker, "no-such-topic", delivery_timeout_seconds=1).start()


@pytest.mark.skipif(has_idempotence(), reason="this broker knows idempotent producers")
async def test_a_broker_without_idempotence_is_met_with_advice(broker: str, topic: str) -> None:
    with pytest.raises(KafkaUnavailableError, match="needs enable_idempotence=False"):
        await EventEmitter(broker, topic=topic, delivery_timeout_seconds=20).start()


async def test_events_in_flight_when_the_broker_is_killed_are_counted_and_named(
    own_broker: KafkaServer | TansuServer,
) -> None:
    await create_topics(own_broker.address, {"t": 3}, timeout_seconds=PATIENCE_SECONDS)
    events = emitter(own_broker.address, "t", delivery_timeout_seconds=DELIVERY_SECONDS)
    await events.start()
    await events.emit_raw(b"before", b"x")
    await events.flush()
    own_broker.kill9()
    for number in range(7):
        await events.emit_raw(b"%d" % number, b"x")
    began = time.monotonic()
    with pytest.raises(KafkaUnavailableError, match=r"^7 events did not reach Kafka at .*; first reason: ") as caught:
        await events.close()
    assert caught.value.failed == 7
    assert sorted(key or b"" for key in caught.value.failed_keys) == [b"%d" % number for number in range(7)]
    assert time.monotonic() - began < BOUND_SECONDS


async def test_a_failed_delivery_is_told_to_the_next_emit_once_and_a_new_broker_is_found(
    own_broker: KafkaServer | TansuServer,
) -> None:
    await create_topics(own_broker.address, {"t": 3}, timeout_seconds=PATIENCE_SECONDS)
    async with emitter(own_broker.address, "t", delivery_timeout_seconds=DELIVERY_SECONDS) as events:
        own_broker.kill9()
        await events.emit_raw(b"lost", b"x")
        with pytest.raises(KafkaUnavailableError, match="1 event did not reach Kafka"):
            await events.flush()
        await events.emit_raw(b"lost too", b"x")
        while events.pending:  # noqa: ASYNC110 - until it fails
            await asyncio.sleep(0.02)
        own_broker.start()
        await create_topics(own_broker.address, {"t": 3}, timeout_seconds=PATIENCE_SECONDS)
        with pytest.raises(KafkaUnavailableError, match="1 event did not reach Kafka") as caught:
            await events.emit_raw(b"refused", b"x")
        assert caught.value.failed_keys == [b"lost too"]
        await events.emit_raw(b"arrives", b"x")
        await events.flush()
        records = await read_topic(own_broker.address, "t")
    assert [record.key for record in records] == [b"arrives"]


@pytest.mark.skipif(stack() == "embedded", reason="Tansu forgets its topics, and acknowledges events without one")
async def test_events_survive_a_broker_that_comes_back_in_time(own_broker: KafkaServer | TansuServer) -> None:
    await create_topics(own_broker.address, {"t": 3}, timeout_seconds=PATIENCE_SECONDS)
    async with emitter(own_broker.address, "t", delivery_timeout_seconds=PATIENCE_SECONDS) as events:
        own_broker.kill9()
        for number in range(3):
            await events.emit_raw(b"%d" % number, b"x")
        with pytest.raises(KafkaUnavailableError, match=r"has not acknowledged 3 events within 0\.3 s"):
            await events.flush(0.3)
        own_broker.start()
        await create_topics(own_broker.address, {"t": 3}, timeout_seconds=PATIENCE_SECONDS)
        await events.flush()
        records = await read_topic(own_broker.address, "t")
    assert sorted(record.key for record in records) == [b"0", b"1", b"2"]


@pytest.mark.skipif(stack() == "embedded", reason="Tansu has no limit of its own")
async def test_an_event_that_the_broker_refuses_is_named_and_those_after_it_arrive(broker: str, topic: str) -> None:
    limited = NewTopic(f"{topic}-limited", 1, 1, topic_configs={"max.message.bytes": "1000"})
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([limited])
    async with emitter(broker, limited.name, compression=None) as events:
        await events.emit_raw(b"before", b"x")
        await events.flush()
        await events.emit_raw(b"too large", b"x" * 2000)
        with pytest.raises(KafkaUnavailableError, match=r"1 event did not reach .*MessageSizeTooLargeError") as caught:
            await events.flush()
        for _ in range(3):
            await events.emit_raw(b"after", b"x")
            await events.flush()
    assert caught.value.failed_keys == [b"too large"]
    assert [record.key for record in await read_topic(broker, limited.name)] == [b"before"] + [b"after"] * 3
    await admin.delete_topics([limited.name])
    await admin.close()


async def test_deliver_returns_when_exactly_its_events_are_acknowledged(broker: str, topic: str) -> None:
    async with emitter(broker, topic, max_pending=10) as events:
        await events.deliver([(b"%d" % number, b"x") for number in range(100)])
        assert len(await read_topic(broker, topic)) == 100
        await events.deliver([])


async def test_a_delivery_that_is_given_up_does_not_disturb_the_others(broker: str, topic: str) -> None:
    async with emitter(broker, topic) as events:
        impatient = asyncio.create_task(events.deliver([(b"k", b"1")]))
        patient = asyncio.create_task(events.deliver([(b"k", b"2")]))
        await asyncio.sleep(0)
        impatient.cancel()
        await patient
    assert [record.value for record in await read_topic(broker, topic)] == [b"1", b"2"]


async def test_deliver_keeps_its_failures_to_its_caller(own_broker: KafkaServer | TansuServer) -> None:
    await create_topics(own_broker.address, {"t": 1}, timeout_seconds=PATIENCE_SECONDS)
    async with emitter(own_broker.address, "t", delivery_timeout_seconds=DELIVERY_SECONDS, max_pending=2) as events:
        own_broker.kill9()
        with pytest.raises(KafkaUnavailableError, match=r"^5 events did not reach Kafka") as caught:
            await events.deliver([(b"%d" % number, b"x") for number in range(5)])
        assert caught.value.failed_keys == [b"0", b"1", b"2", b"3", b"4"]
        await events.flush()


def test_threads_share_a_sync_emitter_and_each_keeps_its_order(broker: str, topic: str) -> None:
    with sync_emitter(broker, topic, max_pending=20) as events:

        def emit_many(thread: int) -> None:
            for number in range(200):
                events.emit_raw(b"%d" % thread, b"%d" % number)

        threads = [threading.Thread(target=emit_many, args=(thread,)) for thread in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        events.flush(PATIENCE_SECONDS)
        records = asyncio.run(read_topic(broker, topic))
    by_key = defaultdict(list)
    for record in records:
        by_key[record.key].append(int(record.value))
    assert by_key == {b"%d" % thread: list(range(200)) for thread in range(4)}


def test_a_sync_emitter_validates_and_sends_events(broker: str, topic: str) -> None:
    with sync_emitter(broker, topic) as events:
        events.emit(an_event("valid"))
        with pytest.raises(InvalidEventError, match=r"^status: "):
            events.emit(an_event(status=5))
    records = asyncio.run(read_topic(broker, topic))
    assert [record.key for record in records] == [b"valid"]


def test_a_sync_emitter_says_when_it_is_not_started_or_closed(broker: str, topic: str) -> None:
    events = sync_emitter(broker, topic)
    with pytest.raises(RuntimeError, match="the event emitter is not started"):
        events.emit(an_event())
    events.close()
    with events:
        pass
    events.close()
    with pytest.raises(RuntimeError, match="the event emitter is closed"):
        events.emit(an_event())


def test_a_sync_emitter_that_cannot_connect_leaves_no_thread() -> None:
    events = sync_emitter(f"127.0.0.1:{free_port()}", "any", delivery_timeout_seconds=2)
    with pytest.raises(KafkaUnavailableError, match="does not answer"):
        events.start()
    assert "event-emitter" not in {thread.name for thread in threading.enumerate()}


def test_threads_that_wait_for_room_hear_of_the_close(broker: str, topic: str) -> None:
    heard: list[str] = []
    events = sync_emitter(broker, topic, max_pending=1)
    events.start()

    def emit_until_closed() -> None:
        try:
            while True:
                events.emit_raw(b"k", b"x")
        except RuntimeError as error:
            heard.append(str(error))

    threads = [threading.Thread(target=emit_until_closed) for _ in range(5)]
    for each in threads:
        each.start()
    events.close()
    for each in threads:
        each.join(PATIENCE_SECONDS)
    assert heard == ["the event emitter is closed"] * 5


def run_script(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=True
    )


FORKING = """
import os, sys
from router_insights import SyncEventEmitter
with SyncEventEmitter(sys.argv[1], topic=sys.argv[2], enable_idempotence=sys.argv[3] == "True") as emitter:
    emitter.emit_raw(b"parent", b"before the fork")
    child = os.fork()
    if child == 0:
        try:
            emitter.emit_raw(b"child", b"x")
        except RuntimeError as error:
            print(error, flush=True)
        emitter.close()
        os._exit(0)
    os.waitpid(child, 0)
    emitter.emit_raw(b"parent", b"after the fork")
"""
FORGETFUL = """
import sys
from router_insights import SyncEventEmitter
emitter = SyncEventEmitter(sys.argv[1], topic=sys.argv[2], enable_idempotence=sys.argv[3] == "True")
emitter.start()
emitter.emit_raw(b"k", b"the last word")
"""


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on(broker: str, topic: str) -> None:
    outcome = run_script(FORKING, broker, topic, str(has_idempotence()))
    assert "belongs to the process before the fork: start one in each process" in outcome.stdout
    values = [record.value for record in asyncio.run(read_topic(broker, topic))]
    assert values == [b"before the fork", b"after the fork"]


def test_a_sync_emitter_left_open_is_flushed_when_the_interpreter_exits(broker: str, topic: str) -> None:
    run_script(FORGETFUL, broker, topic, str(has_idempotence()))
    assert [record.value for record in asyncio.run(read_topic(broker, topic))] == [b"the last word"]
