"""The API over a real warehouse, and what it should answer, worked out in plain Python over the same rows."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from api.app import create_app
from api.events.publisher import EventPublisher
from api.load.call import ReadCall
from api.load.query_threads import QueryThreads
from api.security.keyring import KeyRing
from api.security.permissions import Caller
from api.security.reader import Reader
from api.settings import ApiSettings
from tests.support.rows import KEY_NAMES, Row, folded, insert_rows, payload_of

KEY = "ak-test-1"
MAX_PAGES = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def settings(**changes: Any) -> ApiSettings:
    # Tests ask faster than people, and send wrong keys on purpose.
    limits = ("request_limit", "wrong_key_limit", "search_limit", "suggestions_limit")
    return ApiSettings(**{"api_keys": f"ak-other,{KEY}", **dict.fromkeys(limits, ""), **changes})


@contextmanager
def client_of(
    warehouse: Warehouse, event_publisher: EventPublisher | None = None, **changes: Any
) -> Iterator[TestClient]:
    """A client with a valid key. One event loop for all its requests, so that threads, and with them
    connections, are used again."""
    app = create_app(settings(**changes), warehouse, event_publisher)
    headers = {"Authorization": f"Bearer {KEY}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def client_as(
    warehouse: Warehouse, caller: Caller, event_publisher: EventPublisher | None = None
) -> Iterator[TestClient]:
    """A client whose key is this caller's."""
    with client_of(warehouse, event_publisher) as client:
        client.app.state.keys = KeyRing({KEY: caller})  # type: ignore[attr-defined]
        yield client


def reader_for(warehouse: Warehouse, caller: Caller, **limits: Any) -> Reader:
    """A reader for what no route reads."""
    return Reader(warehouse, limits, caller, QueryThreads(4, warehouse.kill), ReadCall(3600))


@contextmanager
def filled_warehouse(engine_url: str, rows: Sequence[Row]) -> Iterator[Warehouse]:
    """A database of its own with `rows` and their payloads, for a whole module of tests that only read."""
    warehouse = Warehouse(engine_url, database=f"test_{uuid.uuid4().hex[:12]}")
    migrate(warehouse)
    if rows:
        insert_rows(warehouse, rows, [payload_of(row) for row in rows])
    yield warehouse
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()


@contextmanager
def client_without_data(engine_url: str, event_publisher: EventPublisher | None = None) -> Iterator[TestClient]:
    """For what needs no database: it names one that does not exist."""
    warehouse = Warehouse(engine_url, database="not_created")
    with client_of(warehouse, event_publisher) as client:
        yield client
    warehouse.close()


def get(client: TestClient, path: str, **parameters: Any) -> Any:
    """The JSON of a successful GET; parameters that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    response = client.get(path, params=given)
    assert response.status_code == 200, response.text
    return response.json()


def list_logs(client: TestClient, **parameters: Any) -> Any:
    return get(client, "/v1/request-logs", **parameters)


def walk(client: TestClient, **parameters: Any) -> list[Any]:
    """The logs of all pages, each page full but the last."""
    logs, token = [], ""
    for _ in range(MAX_PAGES):
        page = list_logs(client, page_token=token, **parameters)
        logs += page["logs"]
        token = page["next_page_token"]
        if not token:
            return logs
        assert len(page["logs"]) == parameters.get("page_size", 50)
    raise AssertionError(f"the pages do not end: {MAX_PAGES} so far")


def id_of(row: Row) -> str:
    created_at_ms = (row["created_at"] - EPOCH) // timedelta(milliseconds=1)
    return f"{created_at_ms:x}-{row['source_partition']:x}-{row['source_offset']:x}"


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def in_range(row: Row, start_time: datetime | None, end_time: datetime | None) -> bool:
    moment = row["timestamp"]
    return (start_time is None or moment >= start_time) and (end_time is None or moment < end_time)


def matches(row: Row, filters: dict[str, Any]) -> bool:
    """Whether the row passes the filters of GET /v1/request-logs (times as datetimes). An empty text and 0 are none."""
    given: dict[str, Any] = {
        name: value for name, value in filters.items() if value is False or value not in (None, "", 0)
    }
    low, high = given.pop("min_duration_ms", None), given.pop("max_duration_ms", None)
    if not in_range(row, given.pop("start_time", None), given.pop("end_time", None)):
        return False
    duration_ms = row["duration_ms"]
    if low is not None and (duration_ms is None or duration_ms < low):
        return False
    if high is not None and (duration_ms is None or duration_ms > high):
        return False
    status = given.pop("status", None)
    if status is not None and folded(row["status"]) != folded(status):
        return False
    return all(row[name] == value for name, value in given.items())


def in_order(rows: Sequence[Row], order_by: str = "timestamp", order_direction: str = "desc") -> list[Row]:
    """Unknown values last in both directions, ties by the key in the direction asked for."""
    backwards = order_direction == "desc"

    def key(row: Row) -> tuple[Any, ...]:
        return (row[order_by], *(row[name] for name in KEY_NAMES))

    known = [row for row in rows if row[order_by] is not None]
    unknown = [row for row in rows if row[order_by] is None]
    return sorted(known, key=key, reverse=backwards) + sorted(unknown, key=lambda row: key(row)[1:], reverse=backwards)


def microdollars(cost: Decimal | None) -> int | None:
    """Half away from zero, in whole picodollars only."""
    if cost is None:
        return None
    picodollars = int(cost.scaleb(12))
    rounded = (abs(picodollars) + 500_000) // 1_000_000
    return rounded if picodollars >= 0 else -rounded
