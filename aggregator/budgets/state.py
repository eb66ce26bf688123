"""The state of an aggregator: a ledger for each partition that it is assigned, and an outbox of messages to produce.

Nothing here waits. The app queries ClickHouse between `begin_snapshot` and `apply_snapshot`, and increments are
counted meanwhile.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from aggregator.budgets import accounts, metrics, model_health
from aggregator.budgets.accounts import Account, Ledger
from aggregator.budgets.alert import Alert
from aggregator.budgets.budget import Budget, BudgetStatus
from aggregator.budgets.increment import Increment
from aggregator.budgets.snapshot import SnapshotRequest, SnapshotResponse
from aggregator.budgets.subject import Subject, SubjectKind, partition_of


@dataclass(frozen=True)
class OutboxMessage:
    """A message to produce; a value of None removes the key from a compacted topic."""

    key: str
    value: Alert | BudgetStatus | None


class BudgetState:
    """For one thread. `topic` is the source topic; `partitions` is how many partitions the increments' topic has."""

    def __init__(self, topic: str, partitions: int) -> None:
        self._topic = topic
        self._partitions = partitions
        self._budgets: dict[str, Budget] = {}
        self._ledgers: dict[int, Ledger] = {}
        # Alerts that were given and whose period is not over: its end by alert id.
        self._known_alerts: dict[str, datetime] = {}
        self.outbox: deque[OutboxMessage] = deque()
        # Accounts whose sum is not in `budget-status` yet, which is less urgent than a level, by budget id.
        self._unpublished: dict[str, Account] = {}

    @property
    def partitions(self) -> list[int]:
        return list(self._ledgers)

    def change_budgets(self, changed: Mapping[str, Budget | None], now: datetime) -> bool:
        """Set budgets by id, or remove them with None. Returns True if a snapshot is needed."""
        needs_snapshot = False
        for name, budget in changed.items():
            for ledger in self._ledgers.values():
                if name in ledger.accounts:
                    ledger.close(name)
                    if budget is None:
                        self.outbox.append(OutboxMessage(name, None))
            self._budgets.pop(name, None)
            if budget is not None:
                self._budgets[name] = budget
                assigned = self._ledgers.get(self._partition_of(budget.scope))
                if assigned is not None:
                    assigned.open(budget, now)
                    needs_snapshot = True
        return needs_snapshot

    def remove_orphan(self, status: BudgetStatus) -> None:
        """Remove a status from `budget-status` if its budget does not exist and its partition is assigned to us."""
        if status.budget_id not in self._budgets and self._partition_of(status.scope) in self._ledgers:
            self.outbox.append(OutboxMessage(status.budget_id, None))

    def _partition_of(self, subject: Subject) -> int:
        return partition_of(subject.kind.value, subject.value, self._partitions)

    def assign(self, partitions: set[int], now: datetime) -> bool:
        """Open ledgers for new partitions and drop those of revoked ones. Returns True if a snapshot is needed."""
        for partition in set(self._ledgers) - partitions:
            del self._ledgers[partition]
        added = {partition: Ledger() for partition in partitions - set(self._ledgers)}
        if added:
            self._ledgers |= added
            for budget in self._budgets.values():
                if (ledger := added.get(self._partition_of(budget.scope))) is not None:
                    ledger.open(budget, now)
        self._set_budgets_metric()
        return bool(added)

    def _set_budgets_metric(self) -> None:
        metrics.BUDGETS.set(sum(len(ledger.accounts) for ledger in self._ledgers.values()))

    def has_snapshot(self, partition: int) -> bool:
        """Whether the partition is assigned and its increments can be counted."""
        ledger = self._ledgers.get(partition)
        return ledger is not None and ledger.has_snapshot

    def count(self, partition: int, increment: Increment, now: datetime) -> bool:
        """Count an increment of a partition that has a snapshot. Returns False if it was counted before, or comes from
        another source topic."""
        if increment.source.topic != self._topic:
            return False
        changed = accounts.apply_increment(self._ledgers[partition], increment)
        if changed is None:
            return False
        self._publish_alerts(accounts.new_alerts(changed, self._known_alerts, now))
        self._publish_statuses(changed, now, levels_only=True)
        return True

    def roll_over(self, now: datetime) -> bool:
        """Begin new periods, and check the models' health. Returns True if a snapshot is needed."""
        needs_snapshot = False
        for ledger in self._ledgers.values():
            ledger.models.drop_old(now)
            self._publish_alerts(model_health.new_alerts(ledger.models, self._known_alerts, now))
            needs_snapshot |= bool(accounts.roll_over(ledger, now))
        return needs_snapshot

    def begin_snapshot(self, now: datetime) -> SnapshotRequest:
        """What to query ClickHouse for; `apply_snapshot` follows for each partition, or `discard_snapshot`."""
        are_alerts_known = all(ledger.has_snapshot for ledger in self._ledgers.values())
        request = SnapshotRequest(self._topic, now, are_alerts_known)
        for ledger in self._ledgers.values():
            for partition, position in ledger.positions.items():
                request.counted[partition] = max(position.offset, request.counted.get(partition, -1))
            for window, values in accounts.begin_snapshot(ledger, now).items():
                request.windows.setdefault(window, set()).update(values)
        return request

    def discard_snapshot(self) -> None:
        for ledger in self._ledgers.values():
            accounts.discard_snapshot(ledger)

    def apply_snapshot(self, partition: int, response: SnapshotResponse, now: datetime) -> None:
        """Set a partition's accounts to what ClickHouse holds plus what was counted since the request.

        Does nothing for a partition that was assigned after the request.
        """
        ledger = self._ledgers.get(partition)
        if ledger is None or ledger.pending is None:
            return
        models = self._model_history(partition, response)
        drift = accounts.apply_snapshot(ledger, ledger.pending, response.snapshot, models)
        metrics.DRIFT.inc(float(drift))
        self._set_budgets_metric()
        self._known_alerts |= response.known_alerts
        self._known_alerts = {name: end for name, end in self._known_alerts.items() if end > now}
        self._publish_alerts(accounts.new_alerts(ledger.accounts.values(), self._known_alerts, now))
        # An account that is already waiting keeps its place.
        self._unpublished |= {
            name: account
            for name, account in ledger.accounts.items()
            if account.has_snapshot and (account.published is None or account.published[1] != account.spent)
        }

    def _model_history(self, partition: int, response: SnapshotResponse) -> model_health.ModelHistory:
        """Of the models whose usage goes to this partition."""
        history = model_health.ModelHistory()
        for model, usages in response.models.items():
            if partition_of(SubjectKind.MODEL.value, model, self._partitions) == partition:
                history.add(usages)
        history.closed_before = response.models_closed_before
        return history

    @property
    def has_unpublished_sums(self) -> bool:
        return bool(self._unpublished)

    def publish_sums(self, count: int, now: datetime) -> None:
        """Move up to `count` of the sums that a snapshot has changed to the outbox."""
        names = list(islice(self._unpublished, count))
        waiting = [self._unpublished.pop(name) for name in names]
        current = [account for account in waiting if account is self._current_account(account)]
        self._publish_statuses(current, now, levels_only=False)

    def _current_account(self, account: Account) -> Account | None:
        """The account of this budget now: it may have been changed, removed, or assigned to another process."""
        found = (ledger.accounts.get(account.budget.id) for ledger in self._ledgers.values())
        return next(filter(None, found), None)

    def _publish_statuses(self, changed: list[Account], now: datetime, levels_only: bool) -> None:
        for status in accounts.changed_statuses(changed, now, levels_only):
            self.outbox.append(OutboxMessage(status.budget_id, status))

    def _publish_alerts(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            metrics.ALERTS.labels(alert.kind).inc()
            self.outbox.append(OutboxMessage(alert.id, alert))
