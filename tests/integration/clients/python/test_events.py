"""The Python client sends events over HTTP, through a real publisher, to a real broker."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from api.app import create_app
from ingest.producer.event_publisher import KafkaEventPublisher
from router_insights import AsyncClient, Client, InvalidRequestError
from tests.support.api import KEY, settings
from tests.support.kafka import read_topic
from tests.support.running_api import running_api

MOMENT = datetime(2026, 11, 21, 10, tzinfo=UTC)


def event(**changes: Any) -> dict[str, Any]:
    return {"request_id": "r-1", "timestamp": MOMENT, "model_name": "gpt-4o", "status": "success", **changes}


@pytest.fixture
def url(broker: str, topic: str, warehouse: Any) -> Iterator[str]:
    publisher = KafkaEventPublisher(broker, topic)
    with running_api(create_app(settings(), warehouse, publisher), publisher.close) as url:
        yield url


async def test_events_arrive_whole_in_order_under_their_ids(url: str, broker: str, topic: str) -> None:
    events = [event(request_id=f"r-{number}", metadata={"team": "é 😀\n"}, input_tokens=number) for number in range(3)]
    async with AsyncClient(url, KEY) as client:
        assert (await client.events.publish_events(events)).accepted == 3
    records = await read_topic(broker, topic)
    arrived = {record.key.decode(): json.loads(record.value) for record in records}
    assert arrived == {one["request_id"]: {**one, "timestamp": "2026-11-21T10:00:00.000000Z"} for one in events}


def test_a_wrong_event_is_named_by_line_and_field_and_none_is_sent(url: str) -> None:
    with Client(url, KEY) as client, pytest.raises(InvalidRequestError, match="line 2: status_code: ") as caught:
        client.events.publish_events([event(), event(status_code="200")])
    assert [(one.line, one.field) for one in caught.value.details] == [(2, "status_code")]


def test_what_is_no_event_is_refused_before_it_is_sent(url: str) -> None:
    with Client(url, KEY) as client:
        with pytest.raises(ValueError, match=r"^events: there is none"):
            client.events.publish_events([])
        with pytest.raises(ValueError, match=r"^timestamp: must have a time zone"):
            client.events.publish_events([event(timestamp=datetime(2026, 1, 1))])  # noqa: DTZ001
