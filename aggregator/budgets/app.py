"""`insights aggregate`: the Faust app around a `BudgetState`, which does the counting.

Faust reads increments and assigns their partitions to processes. On assignment and every minute the state takes a
snapshot of ClickHouse, and increments count beyond its watermark. So what Faust commits, repeats or loses changes no
sum, only how soon an alert is given; the same holds if it stops reading. The row of an alert decides who posts it.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import uuid4

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from pydantic import ValidationError

from aggregator.budgets import metrics, notifications, topics
from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetStatus
from aggregator.budgets.compacted_topic import CompactedTopic, TopicUnavailableError
from aggregator.budgets.increment import decode
from aggregator.budgets.settings import AggregateSettings
from aggregator.budgets.snapshot import take_snapshot
from aggregator.budgets.state import BudgetState, OutboxMessage
from aggregator.clickhouse.client import DatabaseError, Warehouse, WarehouseUnavailableError

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
RETRY_SECONDS = 1.0
POLL_SECONDS = 0.05
# Many budget statuses travel in one request.
LINGER_SECONDS = 0.01
MESSAGES_AT_A_TIME = 500
# Alerts that wait for the webhook; those beyond are in the table and the topic only.
WEBHOOK_QUEUE_SIZE = 1000
WAREHOUSE_ERRORS = (DatabaseError, WarehouseUnavailableError, OSError)


class Aggregator:
    """Counts usage and gives alerts from `start` to `stop`, both in one event loop."""

    def __init__(self, settings: AggregateSettings, warehouse: Warehouse) -> None:
        self._settings = settings
        self._warehouse = warehouse
        self._webhook = notifications.Webhook(settings.webhook_url, settings.webhook_secret)
        # Sent to the topic, and not in ClickHouse yet.
        self._unstored: deque[notifications.AlertClaim] = deque()
        self._webhook_queue: asyncio.Queue[Alert] = asyncio.Queue(WEBHOOK_QUEUE_SIZE)
        self._reconcile_at = 0.0
        self._are_orphans_removed = False
        self._opened = AsyncExitStack()
        self._folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="insights-aggregate-"))
        self._options = settings.client_options()
        self._budgets = CompactedTopic(settings.kafka_bootstrap_servers, topics.BUDGETS, **self._options)
        # The values that were parsed last; only those that changed are parsed again.
        self._budget_values: Mapping[str, bytes] = {}
        self._loops: list[asyncio.Task[None]] = []
        self.app: faust.App | None = None

    def _credentials(self) -> Any:
        """The security options of `client_options` in Faust's form; None for plain text."""
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
            datadir=self._folder,
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
            # Else a rebalance and a stop wait until all that was read is counted, without a heartbeat, and counting may
            # wait for ClickHouse. The state can cope with increments that are counted twice or not at all.
            stream_wait_empty=False,
        )
        raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw",
                               "value_serializer": "raw"}  # fmt: skip
        increments = app.topic(topics.INCREMENTS, **raw)
        self._alerts = app.topic(topics.ALERTS, **raw)
        self._statuses = app.topic(topics.BUDGET_STATUS, **raw)
        app.agent(increments, name="count", concurrency=1)(self._count_increments)
        return app

    async def start(self) -> None:
        """Raises KafkaError or TopicUnavailableError when Kafka does not answer, TopicError when it refuses a topic."""
        servers = self._settings.kafka_bootstrap_servers
        replicas = await topics.create_budget_topics(servers, **self._options)
        partitions = await topics.partitions_of(servers, topics.INCREMENTS, **self._options)
        self._state = BudgetState(self._settings.kafka_topic, partitions)
        self.app = app = self._make_app(replicas)
        await self._opened.enter_async_context(self._budgets)
        await self._read_budgets()
        await app.start()
        loops = (self._tick_loop, self._reconcile_loop, self._send_loop, self._store_loop, self._post_loop)
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
            await self._opened.aclose()

    async def wait(self) -> None:
        """Wait until it ends, once it is started. Raises what it failed with."""
        assert self.app is not None  # noqa: S101
        app = asyncio.create_task(self.app.wait_until_stopped())
        await asyncio.wait([app, *self._loops], return_when=asyncio.FIRST_COMPLETED)
        for task in self._loops:
            if task.done() and not task.cancelled():
                task.result()
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    # Increments

    async def _count_increments(self, stream: Any) -> None:
        async for event in stream.events():
            await self._count(event.message.partition, event.value, event.message.timestamp)
            # Faust does not yield while increments are queued, and all else would wait for the last of them.
            await asyncio.sleep(0)

    async def _count(self, partition: int, value: bytes, timestamp: float) -> None:
        try:
            increment = decode(value)
        except ValueError as error:
            metrics.INCREMENTS.labels("invalid").inc()
            log.error("increment_invalid", partition=partition, reason=str(error)[:200])
            return
        self._follow_assignment()
        while not self._state.has_snapshot(partition):
            await asyncio.sleep(POLL_SECONDS)
            if partition not in self._assigned():
                return
        counted = self._state.count(partition, increment, _now())
        metrics.INCREMENTS.labels("counted" if counted else "seen").inc()
        if counted:
            metrics.INCREMENT_AGE_SECONDS.observe(max(0.0, _now().timestamp() - timestamp))

    def _assigned(self) -> set[int]:
        assert self.app is not None  # noqa: S101
        return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == topics.INCREMENTS}

    def _follow_assignment(self) -> None:
        """Take over the partitions that Kafka has assigned to us."""
        if self._state.assign(self._assigned(), _now()):
            self._reconcile_at = 0.0
            self._are_orphans_removed = False

    # Time, budgets and ClickHouse

    async def _tick_loop(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with suppress(TopicUnavailableError):
                await self._read_budgets()
            self._follow_assignment()
            if not self._are_orphans_removed:
                with suppress(TopicUnavailableError):
                    await self._remove_orphans()
            if self._state.roll_over(_now()):
                self._reconcile_at = 0.0

    async def _read_budgets(self) -> None:
        before, found = self._budget_values, await self._budgets.read()
        self._budget_values = found
        changed = dict.fromkeys(before.keys() - found.keys())
        changed |= {name: _parse_budget(name, value) for name, value in found.items() if before.get(name) != value}
        if self._state.change_budgets(changed, _now()):
            self._reconcile_at = 0.0

    async def _remove_orphans(self) -> None:
        """Remove the statuses of budgets that were deleted while no aggregator was assigned their partition."""
        self._are_orphans_removed = True
        try:
            servers = self._settings.kafka_bootstrap_servers
            async with CompactedTopic(servers, topics.BUDGET_STATUS, **self._options) as statuses:
                found = await statuses.read()
            # After the statuses, so that a budget that was made meanwhile is known.
            await self._read_budgets()
        except TopicUnavailableError:
            self._are_orphans_removed = False
            raise
        for name, value in found.items():
            try:
                self._state.remove_orphan(BudgetStatus.model_validate_json(value))
            except ValidationError as error:
                log.error("status_invalid", budget=name, reason=str(error)[:300])

    async def _reconcile_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._state.partitions and loop.time() >= self._reconcile_at:
                self._reconcile_at = loop.time() + self._settings.reconcile_seconds
                if not await self._reconcile():
                    self._reconcile_at = loop.time() + RETRY_SECONDS
            await asyncio.sleep(POLL_SECONDS)

    async def _reconcile(self) -> bool:
        """Set all accounts to a snapshot; increments are counted meanwhile. Returns False when ClickHouse failed."""
        request = self._state.begin_snapshot(_now())
        try:
            with metrics.RECONCILE_SECONDS.time():
                response = await asyncio.to_thread(take_snapshot, self._warehouse, request)
        except WAREHOUSE_ERRORS as error:
            self._state.discard_snapshot()
            metrics.RECONCILE_FAILURES.inc()
            log.warning("reconcile_failed", reason=str(error)[:500])
            return False
        for partition in self._state.partitions:
            self._state.apply_snapshot(partition, response, _now())
            # So that the event loop is blocked for one partition at a time.
            await asyncio.sleep(0)
        return True

    # Alerts

    async def _send_loop(self) -> None:
        """Sums only when there is nothing else, and a few at a time: no alert waits behind those of a hundred thousand
        budgets."""
        while True:
            if not self._state.outbox and self._state.has_unpublished_sums:
                self._state.publish_sums(MESSAGES_AT_A_TIME, _now())
            if not await self._send():
                await asyncio.sleep(POLL_SECONDS)

    async def _send(self) -> bool:
        """Produce messages of the outbox in order; they stay there when Kafka refuses them. Returns False then, and
        when there were none."""
        outbox = self._state.outbox
        group = [outbox.popleft() for _ in range(min(len(outbox), MESSAGES_AT_A_TIME))]
        try:
            await asyncio.gather(*[await self._produce(message) for message in group])
        except KafkaError as error:
            outbox.extendleft(reversed(group))
            log.warning("not_sent", messages=len(group), reason=str(error) or type(error).__name__)
            return False
        for message in group:
            if isinstance(message.value, Alert):
                self._unstored.append(notifications.AlertClaim(uuid4().hex, message.value))
        return bool(group)

    async def _produce(self, message: OutboxMessage) -> Awaitable[Any]:
        topic = self._alerts if isinstance(message.value, Alert) else self._statuses
        value = message.value.model_dump_json().encode() if message.value is not None else None
        sent: Awaitable[Any] = await topic.send(key=message.key.encode(), value=value)
        return sent

    async def _store_loop(self) -> None:
        """The process that stored an alert posts it afterwards: the webhook gets it once or, if this process dies in
        between, not at all."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            claims = list(islice(self._unstored, MESSAGES_AT_A_TIME))
            if not claims:
                continue
            try:
                stored = await asyncio.to_thread(notifications.store_alerts, self._warehouse, claims)
            except WAREHOUSE_ERRORS as error:
                log.warning("alerts_not_stored", alerts=len(self._unstored), reason=str(error)[:300])
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for _ in claims:
                self._unstored.popleft()
            self._queue_for_webhook(stored)

    def _queue_for_webhook(self, alerts: list[Alert]) -> None:
        for alert in alerts if self._settings.webhook_url else ():
            log.info("alert", alert=alert.id, message=alert.message)
            try:
                self._webhook_queue.put_nowait(alert)
            except asyncio.QueueFull:
                metrics.WEBHOOKS.labels("dropped").inc()
                log.error("webhook_queue_full", alert=alert.id)

    async def _post_loop(self) -> None:
        """A loop of its own, so that a webhook that does not answer delays no row."""
        while True:
            await self._webhook.post(await self._webhook_queue.get())


def _parse_budget(name: str, value: bytes) -> Budget | None:
    """None, with a log line, for a value that is no budget: it was not written through the API."""
    try:
        return Budget.model_validate_json(value)
    except ValidationError as error:
        log.error("budget_invalid", budget=name, reason=str(error)[:300])
        return None


def _now() -> datetime:
    return datetime.now(UTC)
