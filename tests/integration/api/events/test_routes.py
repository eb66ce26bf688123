"""POST /v1/events passes whole bodies to the publisher and answers for it."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from aggregator.errors import EventProblem, InvalidEventsError, NotStoredError
from api.app import create_app
from api.events.routes import MAX_BODY_BYTES
from router_insights.errors import KafkaUnavailableError
from tests.support.api import KEY, client_without_data, get, settings

PATH = "/v1/events"
SCHEMA = {"title": "RequestEvent", "type": "object"}


class Publisher:
    """Keeps what it is given; refuses bodies that say so."""

    def __init__(self) -> None:
        self.published: list[tuple[bytes, bool]] = []

    async def publish(self, body: bytes, is_ndjson: bool) -> int:
        if b"bad" in body:
            raise InvalidEventsError([EventProblem(2, "status", "Field required")])
        if b"away" in body:
            raise KafkaUnavailableError("away")
        if b"late" in body:
            raise NotStoredError("1 events were not stored within 30 s")
        self.published.append((body, is_ndjson))
        return len(body.splitlines())

    def schema(self) -> dict[str, Any]:
        return SCHEMA


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def client(engine_url: str, publisher: Publisher) -> Iterator[TestClient]:
    with client_without_data(engine_url, publisher) as client:
        yield client


def post(client: TestClient, body: Any, content_type: str | None = "application/json") -> tuple[int, Any]:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.post(PATH, content=body, headers=headers)
    return response.status_code, response.json()


@pytest.mark.parametrize(
    ("content_type", "is_ndjson"),
    [
        ("application/json", False),
        ("Application/JSON; charset=utf-8", False),
        ("application/x-ndjson", True),
        ("application/x-ndjson;charset=utf-8", True),
    ],
)
def test_a_body_reaches_the_publisher_as_it_is(
    client: TestClient, publisher: Publisher, content_type: str, is_ndjson: bool
) -> None:
    body = b'{"request_id": "\xc3\xa9"}\n{}'
    assert post(client, body, content_type) == (202, {"accepted": 2})
    assert publisher.published == [(body, is_ndjson)]


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/xml", "application/jsonx", "json"])
def test_another_content_type_is_415(client: TestClient, publisher: Publisher, content_type: str | None) -> None:
    status, answer = post(client, b"{}", content_type)
    assert (status, answer["code"]) == (415, "unsupported_media_type")
    assert answer["details"][0]["allowed"] == ["application/json", "application/x-ndjson"]
    assert publisher.published == []


def test_invalid_events_are_422_with_line_and_field(client: TestClient) -> None:
    status, answer = post(client, b"{}\nbad", "application/x-ndjson")
    assert (status, answer["code"]) == (422, "invalid_body")
    assert answer["details"] == [{"line": 2, "field": "status", "message": "Field required"}]


def test_kafka_being_away_is_503(client: TestClient) -> None:
    status, answer = post(client, b"away")
    assert (status, answer["code"]) == (503, "unavailable")


def test_events_that_may_not_be_stored_are_503_with_the_reason(client: TestClient) -> None:
    status, answer = post(client, b"late")
    assert (status, answer["code"]) == (503, "unavailable")
    assert answer["message"].startswith("The events may not be stored, so send them again: 1 events were not stored")


def test_a_body_of_eight_mebibytes_is_taken_and_one_byte_more_is_413(client: TestClient, publisher: Publisher) -> None:
    assert MAX_BODY_BYTES == 8 * 1024 * 1024
    assert post(client, b"x" * MAX_BODY_BYTES)[0] == 202
    status, answer = post(client, b"x" * (MAX_BODY_BYTES + 1))
    assert (status, answer["code"]) == (413, "payload_too_large")
    assert len(publisher.published) == 1


def test_a_body_without_a_declared_length_is_cut_off_at_the_same_size(client: TestClient, publisher: Publisher) -> None:
    sent = 0

    def chunks(count: int) -> Iterator[bytes]:
        nonlocal sent
        for _ in range(count):
            sent += 1
            yield b"x" * 1024 * 1024

    assert post(client, chunks(8))[0] == 202
    assert post(client, chunks(9))[0] == 413
    assert len(publisher.published) == 1


@pytest.mark.parametrize("length", ["9" * 30, "9" * 5000, str(MAX_BODY_BYTES + 1)])
def test_a_body_that_only_claims_to_be_large_is_413(client: TestClient, length: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}
    assert client.post(PATH, content=iter([b"{}"]), headers=headers).status_code == 413


@pytest.mark.parametrize("length", ["-1", "abc", "", "²", "1e9"])
def test_a_declared_length_that_is_no_number_is_not_believed(client: TestClient, length: str) -> None:
    headers = [(b"Content-Type", b"application/json"), (b"Content-Length", length.encode("latin-1"))]
    assert client.post(PATH, content=iter([b"{}"]), headers=headers).status_code == 202


async def test_a_client_that_goes_away_in_mid_body_is_no_fault_of_the_service(
    engine_url: str, publisher: Publisher
) -> None:
    app = create_app(settings(), Warehouse(engine_url, database="not_created"), publisher)
    incoming = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert publisher.published == []


def test_the_schema_is_that_of_the_publisher(client: TestClient) -> None:
    assert get(client, f"{PATH}/schema") == SCHEMA


def test_without_a_publisher_events_are_503(engine_url: str) -> None:
    with client_without_data(engine_url) as client:
        assert post(client, b"{}")[0] == 503
        assert client.get(f"{PATH}/schema").status_code == 503


def compressed(body: bytes, encoding: str) -> bytes:
    return bytes(pa.compress(body, codec=encoding, asbytes=True))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_may_be_compressed(client: TestClient, publisher: Publisher, encoding: str) -> None:
    lines = b'{"request_id": "a"}\n{"request_id": "b"}' * 1000
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": encoding.upper()}
    response = client.post(PATH, content=compressed(lines, encoding), headers=headers)
    assert response.status_code == 202, response.text
    assert publisher.published == [(lines, True)]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_the_bound_of_a_body_holds_for_what_it_is_inflated_to(
    client: TestClient, publisher: Publisher, encoding: str
) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    bomb = compressed(b" " * 200_000_000, encoding)
    assert len(bomb) < 1_000_000
    assert client.post(PATH, content=bomb, headers=headers).status_code == 413
    assert client.post(PATH, content=compressed(b" " * MAX_BODY_BYTES, encoding), headers=headers).status_code == 202
    assert client.post(PATH, content=compressed(b"x" * 100, encoding)[:-5], headers=headers).status_code == 400
    assert client.post(PATH, content=b"{}", headers=headers).status_code == 400
    assert len(publisher.published) == 1


def test_an_unknown_encoding_is_refused_with_those_that_are_known(client: TestClient, publisher: Publisher) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "br"}
    response = client.post(PATH, content=b"{}", headers=headers)
    assert response.status_code == 415
    assert "gzip, x-gzip, zstd, identity" in response.json()["message"]
    assert publisher.published == []
