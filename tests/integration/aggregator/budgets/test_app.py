"""Worker, aggregator and API beside each other on a real broker and the real engine: from an event to an alert."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from typing import Any

import pytest
import structlog
from pydantic import SecretStr, ValidationError

from aggregator.budgets import notifications
from aggregator.budgets.alert import Alert
from aggregator.budgets.app import Aggregator
from aggregator.budgets.budget import Budget, BudgetLevel, BudgetStatus, BudgetUnit
from aggregator.budgets.notifications import Webhook, signature
from aggregator.budgets.settings import AggregateSettings
from aggregator.budgets.topics import ALERTS
from aggregator.clickhouse.client import Warehouse
from cli.adapters.budget_store import KafkaBudgets
from ingest.consumer.worker import Worker
from tests.integration.ingest.test_worker import make_settings, produce, running
from tests.support.kafka import PATIENCE_SECONDS, read_topic, stack

SPENT = "SELECT sum(cost) AS spent FROM rollup_user WHERE user_id = {user:String}"
SECRET = "a secret"


class Calls:
    """A web server that keeps what is posted to it, and answers the first calls with `failures`, once `may_answer`."""

    def __init__(self, failures: list[int]) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.may_answer = Event()
        self.may_answer.set()
        calls = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                calls.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                calls.may_answer.wait()
                self.send_response(failures.pop(0) if failures else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()

    def of_budget(self, name: str) -> list[Alert]:
        alerts = [Alert.model_validate_json(body) for _, body in self.received]
        return [alert for alert in alerts if alert.budget_id == name]


@asynccontextmanager
async def aggregating(
    broker: str, topic: str, warehouse: Warehouse, group: str, **settings: Any
) -> AsyncIterator[Aggregator]:
    values = {
        "kafka_bootstrap_servers": broker,
        "kafka_topic": topic,
        "aggregate_group": group,
        "kafka_session_timeout_ms": 1000 if stack() == "embedded" else 6000,
        **settings,
    }
    aggregator = Aggregator(AggregateSettings(**values), warehouse)
    await aggregator.start()
    try:
        yield aggregator
    finally:
        await aggregator.stop()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.1)


def event(number: int, user: str, moment: datetime | None = None) -> bytes:
    value = {
        "request_id": f"r-{number}", "timestamp": (moment or datetime.now(UTC)).isoformat(), "model_name": "gpt-4o",
        "provider": "openai", "status": "success", "user_id": user, "input_tokens": 1000 + number, "output_tokens": 7,
    }  # fmt: skip
    return json.dumps(value).encode()


async def test_budgets_give_each_alert_once_across_restarts_and_a_change_applies_to_what_was_spent(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    user, name, group = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("user", "budget", "group"))
    budget = Budget.model_validate(
        {"id": name, "scope": {"kind": "user", "value": user}, "unit": "requests", "limit": "100", "period": "month"}
    )
    dollars = budget.model_copy(update={"id": f"{name}-dollars", "unit": BudgetUnit.DOLLARS})
    store, calls = KafkaBudgets(broker), Calls([])

    async def status(of: str = name) -> BudgetStatus | None:
        return (await store.statuses()).get(of)

    async def has_spent(requests: int) -> bool:
        found = await status()
        return found is not None and found.spent == requests

    async def is_exceeded() -> bool:
        found = await status()
        return found is not None and found.level is BudgetLevel.EXCEEDED

    def aggregator() -> Any:
        # Reconciled rarely, so that what is seen comes from increments.
        return aggregating(broker, topic, warehouse, group, webhook_url=calls.url, webhook_secret=SecretStr(SECRET),
                           reconcile_seconds=3600)  # fmt: skip

    worker = Worker(make_settings(broker, topic), warehouse)
    await store.put(budget)
    await store.put(dollars)
    try:
        async with running(worker):
            async with aggregator():
                await until(lambda: has_spent(0))
                await produce(broker, topic, [event(n, user) for n in range(60)])
                # Another month's requests are none of this one's.
                await produce(broker, topic, [event(999, user, datetime.now(UTC) - timedelta(days=40))])
                await until(lambda: _has([50], calls, name))
            # While no aggregator runs.
            await produce(broker, topic, [event(n, user) for n in range(60, 85)])
            await asyncio.sleep(1.0)
            async with aggregator():
                await until(lambda: has_spent(85))
                await until(lambda: _has([50, 80], calls, name))
                found = await status(dollars.id)
                assert found is not None
                stored = warehouse.query(f"{SPENT} AND bucket > now() - INTERVAL 2 DAY", {"user": user})
                assert found.spent == stored[0]["spent"] > 0
                # Changed in mid-period: half as much, so that 85 is too much already.
                await store.put(budget.model_copy(update={"limit": budget.limit / 2}))
                await until(lambda: _has([50, 80, 50, 80, 100], calls, name))
                await until(is_exceeded)
                await store.delete(name)
                await until(lambda: _is_none(status))
    finally:
        await store.delete(dollars.id)
        await store.close()
        calls.close()
    ids = [alert.id for alert in calls.of_budget(name)]
    assert len(set(ids)) == 5
    rows = warehouse.query("SELECT alert_id FROM alerts WHERE budget_id = {name:String}", {"name": name})
    assert sorted(row["alert_id"] for row in rows) == sorted(ids)


def requests_budget(name: str, user: str) -> Budget:
    return Budget.model_validate(
        {"id": name, "scope": {"kind": "user", "value": user}, "unit": "requests", "limit": "2", "period": "month"}
    )


async def test_the_state_of_a_budget_that_was_deleted_while_no_aggregator_ran_is_removed(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    user, gone, kept, group = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("user", "gone", "kept", "group"))
    store = KafkaBudgets(broker)

    async def names() -> set[str]:
        return set(await store.statuses()) & {gone, kept}

    async def are_published() -> bool:
        return await names() == {gone, kept}

    async def is_removed() -> bool:
        return gone not in await names()

    try:
        for name in (gone, kept):
            await store.put(requests_budget(name, user))
        async with aggregating(broker, topic, warehouse, group):
            await until(are_published)
        await store.delete(gone)
        assert await names() == {gone, kept}
        async with aggregating(broker, topic, warehouse, group):
            await until(is_removed)
            assert await names() == {kept}
    finally:
        await store.delete(kept)
        await store.close()


async def test_a_dead_webhook_delays_no_row(
    broker: str, topic: str, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, name, group = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("user", "budget", "group"))
    # The first call does not end before the test does.
    monkeypatch.setattr(notifications, "TIMEOUT_SECONDS", 600.0)
    store, calls = KafkaBudgets(broker), Calls([])
    calls.may_answer.clear()

    async def are_stored() -> bool:
        rows = warehouse.query("SELECT alert_id FROM alerts WHERE budget_id = {name:String}", {"name": name})
        return len(rows) == 3

    try:
        await store.put(requests_budget(name, user))
        async with (
            running(Worker(make_settings(broker, topic), warehouse)),
            aggregating(broker, topic, warehouse, group, webhook_url=calls.url),
        ):
            await produce(broker, topic, [event(n, user) for n in range(3)])
            await until(are_stored)
            assert len(calls.of_budget(name)) <= 1
    finally:
        await store.delete(name)
        await store.close()
        calls.close()


async def test_alerts_are_sent_stored_and_posted_when_faust_reads_no_more(
    broker: str, topic: str, warehouse: Warehouse
) -> None:
    user, name, group = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("user", "budget", "group"))
    store, calls = KafkaBudgets(broker), Calls([])
    try:
        await store.put(requests_budget(name, user))
        async with (
            running(Worker(make_settings(broker, topic), warehouse)),
            aggregating(broker, topic, warehouse, group, webhook_url=calls.url, reconcile_seconds=1) as aggregator,
        ):
            await until(lambda: _is_published(store, name, 0))
            assert aggregator.app is not None
            aggregator.app.flow_control.suspend()
            await produce(broker, topic, [event(n, user) for n in range(2)])
            await until(lambda: _is_published(store, name, 2))
            await until(lambda: _has([50, 80, 100], calls, name))
        ids = {alert.id for alert in calls.of_budget(name)}
        rows = warehouse.query("SELECT alert_id FROM alerts WHERE budget_id = {name:String}", {"name": name})
        assert {row["alert_id"] for row in rows} == ids
        on_topic = [Alert.model_validate_json(record.value) for record in await read_topic(broker, ALERTS)]
        assert sorted(alert.id for alert in on_topic if alert.budget_id == name) == sorted(ids)
    finally:
        await store.delete(name)
        await store.close()
        calls.close()


async def _is_published(store: KafkaBudgets, name: str, spent: int) -> bool:
    status = (await store.statuses()).get(name)
    return status is not None and status.spent == spent


async def _has(expected: list[int], calls: Calls, name: str) -> bool:
    found = [alert.threshold_percent for alert in calls.of_budget(name)]
    assert len(found) <= len(expected)
    return sorted(found) == sorted(expected)


async def _is_none(question: Callable[[], Awaitable[object]]) -> bool:
    return await question() is None


ALERT = Alert.model_validate(
    {"id": "a1", "kind": "silence", "created_at": "2026-11-24T12:00:00Z", "scope": {"kind": "model", "value": "é"},
     "value": "0", "limit": "20", "period_start": "2026-11-24T12:00:00Z", "period_end": "2026-11-24T13:00:00Z",
     "message": "quiet"}
)  # fmt: skip


@pytest.mark.parametrize(
    ("failures", "calls_made", "is_sent"),
    [
        pytest.param([], 1, True, id="at once"),
        pytest.param([500, 503, 429], 4, True, id="after what may pass"),
        pytest.param([400], 1, False, id="a refusal is not repeated"),
        pytest.param([500] * 9, 5, False, id="not for ever"),
    ],
)
async def test_the_webhook_is_signed_and_tried_again(failures: list[int], calls_made: int, is_sent: bool) -> None:
    calls = Calls(failures)
    try:
        assert await Webhook(calls.url, SecretStr(SECRET), waits=(0.01, 0.02)).post(ALERT) is is_sent
    finally:
        calls.close()
    assert len(calls.received) == calls_made
    for headers, body in calls.received:
        assert Alert.model_validate_json(body) == ALERT
        assert headers["x-insights-alert-id"] == ALERT.id
        timestamp = int(headers["x-insights-timestamp"])
        assert headers["x-insights-signature"] == signature(SECRET, timestamp, body)
        assert headers["x-insights-signature"] != signature("another", timestamp, body)


async def test_a_webhook_that_nobody_serves_is_given_up() -> None:
    assert await Webhook("http://127.0.0.1:9/", SecretStr(""), waits=(0.01, 0.02)).post(ALERT) is False
    assert await Webhook("nonsense", SecretStr(""), waits=(0.01, 0.02)).post(ALERT) is False


@pytest.mark.parametrize("length", [10**9, 10])
async def test_of_the_webhooks_answer_only_the_status_is_read(length: int) -> None:
    """It may be huge, or drip for ever."""
    calls, is_hung_up = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % length)
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        is_hung_up.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await Webhook(url, SecretStr(SECRET)).post(ALERT) is True
        await is_hung_up.wait()
    assert calls == 1


async def test_a_failure_of_the_webhook_is_logged_without_its_url() -> None:
    calls = Calls([400])
    try:
        with structlog.testing.capture_logs() as lines:
            assert await Webhook(f"{calls.url}?token=s3cret", SecretStr(SECRET)).post(ALERT) is False
    finally:
        calls.close()
    assert [line["reason"] for line in lines] == ["answered with status 400"]
    assert "s3cret" not in str(lines)


@pytest.mark.parametrize("url", ["nonsense", "ftp://example.org/", "https://", "//example.org"])
def test_a_webhook_that_is_no_address_is_refused_at_start(url: str) -> None:
    with pytest.raises(ValidationError, match="must be an address such as") as caught:
        AggregateSettings(webhook_url=url)
    assert caught.value.error_count() == 1
