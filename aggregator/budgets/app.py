"""`insights aggregate`: the Faust app around a `Book`, which does the counting.

Faust reads increments and spreads their partitions over processes. The book is built from ClickHouse whenever
partitions come, and the increments that follow count beyond its cut, so what Faust commits, repeats or forgets, even
that it reads no more, changes nothing but how soon an alert is given. The row of an alert decides who posts it.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import uuid4

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from pydantic import ValidationError

from aggregator.budgets import metrics, notifications, snapshot, topics
from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetStatus
from aggregator.budgets.compacted_topic import CompactedTopic, TopicUnavailableError
from aggregator.budgets.increment import decode
from aggregator.budgets.settings import AggregateSettings
from aggregator.budgets.state import BudgetState, OutboxMessage
from aggregator.clickhouse.client import DatabaseError, Warehouse, WarehouseUnavailableError

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
RETRY_SECONDS = 1.0
POLL_SECONDS = 0.05
# Many states of budgets travel in one request.
LINGER_SECONDS = 0.01
MESSAGES_AT_A_TIME = 500
# Alerts that wait for the webhook; what is beyond is in the table and the topic only.
MAX_WAITING_ALERTS = 1000
WAREHOUSE_ERRORS = (DatabaseError, WarehouseUnavailableError, OSError)


class Aggregator:
    """Counts until it is stopped; `start` and `stop` in one event loop."""

    def __init__(self, settings: AggregateSettings, warehouse: Warehouse) -> None:
        self._settings = settings
        self._warehouse = warehouse
        self._webhook = notifications.Webhook(settings.webhook_url, settings.webhook_secret)
        # On the topic, and not in ClickHouse yet.
        self._to_store: deque[notifications.Claim] = deque()
        self._to_post: asyncio.Queue[Alert] = asyncio.Queue(MAX_WAITING_ALERTS)
        self._reconcile_at = 0.0
        self._are_statuses_checked = False
        self._folder = tempfile.TemporaryDirectory(prefix="insights-aggregate-")
        self._options = settings.client_options()
        self._budgets = CompactedTopic(settings.kafka_bootstrap_servers, topics.BUDGETS, **self._options)
        # What is in the topic; only what changes is read again.
        self._budget_values: Mapping[str, bytes] = {}
        self._loops: list[asyncio.Task[None]] = []
        self.app: faust.App | None = None

    def _credentials(self) -> Any:
        """What aiokafka is told with `client_options`, as Faust wants it; None for plain text."""
        settings = self._settings
        if settings.kafka_username:
            return SASLCredentials(
                username=settings.kafka_username,
                password=settings.kafka_password.get_secret_value(),
                mechanism=settings.kafka_sasl_mechanism,
                ssl_context=self._options["ssl_context"],
            )
        return SSLCredentials(self._options["ssl_context"]) if self._options else None

    def _make_app(self, replicas: int) -> faust.App:
        session_seconds = self._settings.kafka_session_timeout_ms / 1000
        servers = [f"kafka://{server.strip()}" for server in self._settings.kafka_bootstrap_servers.split(",")]
        app = faust.App(
            self._settings.aggregate_group,
            broker=servers,
            broker_credentials=self._credentials(),
            # There is no table; this only keeps Faust's folder out of ours.
            datadir=self._folder.name,
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            processing_guarantee="at_least_once",
            broker_commit_interval=1.0,
            producer_linger=LINGER_SECONDS,
            consumer_auto_offset_reset="earliest",
            topic_partitions=1,
            topic_replication_factor=replicas,
            broker_session_timeout=session_seconds,
            broker_heartbeat_interval=session_seconds / 3,
            # Else a rebalance and a stop wait until what was read is counted, which may wait for ClickHouse, with no
            # heartbeat meanwhile. What is counted twice or not at all is the book's care.
            stream_wait_empty=False,
        )
        raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw",
                               "value_serializer": "raw"}  # fmt: skip
        increments = app.topic(topics.INCREMENTS, **raw)
        self._alerts = app.topic(topics.ALERTS, **raw)
        self._statuses = app.topic(topics.BUDGET_STATUS, **raw)
        app.agent(increments, name="count", concurrency=1)(self._count_all)
        return app

    async def start(self) -> None:
        """Raises KafkaError or TopicUnavailableError when Kafka does not answer."""
        servers = self._settings.kafka_bootstrap_servers
        replicas = await topics.create_motion_topics(servers, **self._options)
        self._book = BudgetState(
            self._settings.kafka_topic, await topics.partitions_of(servers, topics.INCREMENTS, **self._options)
        )
        self.app = app = self._make_app(replicas)
        await self._budgets.__aenter__()
        await self._read_budgets()
        await app.start()
        loops = (self._tick_for_ever, self._reconcile_for_ever, self._send_for_ever, self._store_for_ever,
                 self._post_for_ever)  # fmt: skip
        self._loops = [asyncio.create_task(loop()) for loop in loops]

    async def stop(self) -> None:
        for task in self._loops:
            task.cancel()
        if self._loops:
            await asyncio.wait(self._loops)
        try:
            if self.app is not None:
                await self.app.stop()
        finally:
            await self._budgets.__aexit__()
            self._folder.cleanup()

    async def wait(self) -> None:
        """Until it ends, once it was started; raises what it failed with."""
        assert self.app is not None  # noqa: S101
        app = asyncio.create_task(self.app.wait_until_stopped())
        await asyncio.wait([app, *self._loops], return_when=asyncio.FIRST_COMPLETED)
        for task in self._loops:
            if task.done() and not task.cancelled():
                task.result()
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    # Increments

    async def _count_all(self, stream: Any) -> None:
        async for event in stream.events():
            await self._count(event.message.partition, event.value, event.message.timestamp)
            # Faust does not wait for an increment that is there already, and all else would wait for the last one.
            await asyncio.sleep(0)

    async def _count(self, partition: int, value: bytes, timestamp: float) -> None:
        try:
            increment = decode(value)
        except ValueError as error:
            metrics.INCREMENTS.labels("invalid").inc()
            log.error("increment_invalid", partition=partition, reason=str(error)[:200])
            return
        self._own()
        while not self._book.has_base(partition):
            await asyncio.sleep(POLL_SECONDS)
            if partition not in self._assigned():
                return
        counted = self._book.count(partition, increment, _now())
        metrics.INCREMENTS.labels("counted" if counted else "seen").inc()
        if counted:
            metrics.INCREMENT_AGE_SECONDS.observe(max(0.0, _now().timestamp() - timestamp))

    def _assigned(self) -> set[int]:
        assert self.app is not None  # noqa: S101
        return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == topics.INCREMENTS}

    def _own(self) -> None:
        """Follow what Kafka has assigned."""
        if self._book.own(self._assigned(), _now()):
            self._reconcile_at = 0.0
            self._are_statuses_checked = False

    # Time, budgets and ClickHouse

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with suppress(TopicUnavailableError):
                await self._read_budgets()
            self._own()
            if not self._are_statuses_checked:
                with suppress(TopicUnavailableError):
                    await self._check_statuses()
            if self._book.turn(_now()):
                self._reconcile_at = 0.0

    async def _read_budgets(self) -> None:
        before, found = self._budget_values, await self._budgets.read()
        self._budget_values = found
        changed = dict.fromkeys(before.keys() - found.keys())
        changed |= {name: _parsed(name, value) for name, value in found.items() if before.get(name) != value}
        if self._book.change_budgets(changed, _now()):
            self._reconcile_at = 0.0

    async def _check_statuses(self) -> None:
        """Remove the states of budgets that were deleted while nobody owned them."""
        self._are_statuses_checked = True
        try:
            servers = self._settings.kafka_bootstrap_servers
            async with CompactedTopic(servers, topics.BUDGET_STATUS, **self._options) as statuses:
                found = await statuses.read()
            # After the states, so that the budget of each that is still there is known.
            await self._read_budgets()
        except TopicUnavailableError:
            self._are_statuses_checked = False
            raise
        for name, value in found.items():
            try:
                self._book.remove_stray(BudgetStatus.model_validate_json(value))
            except ValidationError as error:
                log.error("status_invalid", budget=name, reason=str(error)[:300])

    async def _reconcile_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._book.partitions and loop.time() >= self._reconcile_at:
                self._reconcile_at = loop.time() + self._settings.reconcile_seconds
                if not await self._reconcile():
                    self._reconcile_at = loop.time() + RETRY_SECONDS
            await asyncio.sleep(POLL_SECONDS)

    async def _reconcile(self) -> bool:
        """Increments are counted while ClickHouse answers; False when it could not tell."""
        inquiry = self._book.ask(_now())
        try:
            with metrics.RECONCILE_SECONDS.time():
                answer = await asyncio.to_thread(snapshot.answer, self._warehouse, inquiry)
        except WAREHOUSE_ERRORS as error:
            self._book.forget()
            metrics.RECONCILE_FAILURES.inc()
            log.warning("reconcile_failed", reason=str(error)[:500])
            return False
        for partition in self._book.partitions:
            self._book.take(partition, answer, _now())
            # So that nothing waits for more than one of them.
            await asyncio.sleep(0)
        return True

    # Alerts

    async def _send_for_ever(self) -> None:
        """Mere sums only when there is nothing else, and a few at a time: no alert waits behind those of a hundred
        thousand budgets."""
        while True:
            if not self._book.outbox and self._book.has_more_to_tell:
                self._book.tell_sums(MESSAGES_AT_A_TIME, _now())
            if not await self._send():
                await asyncio.sleep(POLL_SECONDS)

    async def _send(self) -> bool:
        """Produce what the book has to say, in its order; what Kafka does not take stays for the next time. False if
        there was nothing, or Kafka took it not."""
        outbox = self._book.outbox
        group = [outbox.popleft() for _ in range(min(len(outbox), MESSAGES_AT_A_TIME))]
        try:
            await asyncio.gather(*[await self._produce(message) for message in group])
        except KafkaError as error:
            outbox.extendleft(reversed(group))
            log.warning("not_sent", messages=len(group), reason=str(error) or type(error).__name__)
            return False
        for message in group:
            if isinstance(message.value, Alert):
                self._to_store.append(notifications.Claim(uuid4().hex, message.value))
        return bool(group)

    async def _produce(self, message: OutboxMessage) -> Awaitable[Any]:
        topic = self._alerts if isinstance(message.value, Alert) else self._statuses
        value = message.value.model_dump_json().encode() if message.value is not None else None
        sent: Awaitable[Any] = await topic.send(key=message.key.encode(), value=value)
        return sent

    async def _store_for_ever(self) -> None:
        """Who stores an alert posts it, after that: the webhook hears of it once or, if this process dies right then,
        not at all."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            claims = list(islice(self._to_store, MESSAGES_AT_A_TIME))
            if not claims:
                continue
            try:
                stored = await asyncio.to_thread(notifications.store, self._warehouse, claims)
            except WAREHOUSE_ERRORS as error:
                log.warning("alerts_not_stored", alerts=len(self._to_store), reason=str(error)[:300])
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for _ in claims:
                self._to_store.popleft()
            self._post_later(stored)

    def _post_later(self, alerts: list[Alert]) -> None:
        for alert in alerts if self._settings.webhook_url else ():
            log.info("alert", alert=alert.id, message=alert.message)
            try:
                self._to_post.put_nowait(alert)
            except asyncio.QueueFull:
                metrics.WEBHOOKS.labels("dropped").inc()
                log.error("webhook_queue_full", alert=alert.id)

    async def _post_for_ever(self) -> None:
        """On its own, so that a webhook that does not answer delays no row."""
        while True:
            await self._webhook.post(await self._to_post.get())


def _parsed(name: str, value: bytes) -> Budget | None:
    """None, with a log line, for what is no budget: whoever wrote it did not use the API."""
    try:
        return Budget.model_validate_json(value)
    except ValidationError as error:
        log.error("budget_invalid", budget=name, reason=str(error)[:300])
        return None


def _now() -> datetime:
    return datetime.now(UTC)
