"""What an aggregator keeps: a ledger per partition that it owns, and what is to be sent.

Nothing here waits: ClickHouse is asked between `ask` and `take`, and increments are counted meanwhile.
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
from aggregator.budgets.snapshot import Inquiry, SnapshotAnswer
from aggregator.budgets.subject import SubjectKind, partition_of


@dataclass(frozen=True)
class OutboxMessage:
    """What is to be produced; no value removes a key from a compacted topic."""

    key: str
    value: Alert | BudgetStatus | None


class BudgetState:
    """For one thread."""

    def __init__(self, topic: str, partitions: int) -> None:
        self._topic = topic
        self._partitions = partitions
        self._budgets: dict[str, Budget] = {}
        self._ledgers: dict[int, Ledger] = {}
        self._known: dict[str, datetime] = {}
        self.outbox: deque[OutboxMessage] = deque()
        # Budgets whose sum `budget-status` does not know yet, which is less urgent, by id.
        self._untold: dict[str, Account] = {}

    @property
    def partitions(self) -> list[int]:
        return list(self._ledgers)

    def change_budgets(self, changed: Mapping[str, Budget | None], now: datetime) -> bool:
        """Take over what became of budgets, by id, None for one that is gone; True if a reconcile is due."""
        is_due = False
        for name, budget in changed.items():
            for owned in self._ledgers.values():
                if name in owned.accounts:
                    owned.close(name)
                    if budget is None:
                        self.outbox.append(OutboxMessage(name, None))
            self._budgets.pop(name, None)
            if budget is not None:
                self._budgets[name] = budget
                of_scope = self._ledgers.get(self._partition_of(budget))
                if of_scope is not None:
                    of_scope.open(budget, now)
                    is_due = True
        return is_due

    def remove_stray(self, status: BudgetStatus) -> None:
        """Take a state out of `budget-status` if its scope is ours and its budget is gone."""
        scope = status.scope
        partition = partition_of(scope.kind.value, scope.value, self._partitions)
        if status.budget_id not in self._budgets and partition in self._ledgers:
            self.outbox.append(OutboxMessage(status.budget_id, None))

    def _partition_of(self, budget: Budget) -> int:
        return partition_of(budget.scope.kind.value, budget.scope.value, self._partitions)

    def own(self, partitions: set[int], now: datetime) -> bool:
        """Take over partitions and let go of others; True if a reconcile is due."""
        for partition in set(self._ledgers) - partitions:
            del self._ledgers[partition]
        added = {partition: Ledger() for partition in partitions - set(self._ledgers)}
        if added:
            self._ledgers |= added
            for budget in self._budgets.values():
                if (of_scope := added.get(self._partition_of(budget))) is not None:
                    of_scope.open(budget, now)
        self._show_budgets()
        return bool(added)

    def _show_budgets(self) -> None:
        metrics.BUDGETS.set(sum(len(owned.accounts) for owned in self._ledgers.values()))

    def has_base(self, partition: int) -> bool:
        """Whether the partition is owned, and its increments can be counted."""
        owned = self._ledgers.get(partition)
        return owned is not None and owned.has_base

    def count(self, partition: int, increment: Increment, now: datetime) -> bool:
        """Count an increment of a partition that has a base; False if it was counted before, or is not of our topic."""
        if increment.source.topic != self._topic:
            return False
        changed = accounts.apply(self._ledgers[partition], increment)
        if changed is None:
            return False
        self._post(accounts.alerts(changed, self._known, now))
        self._tell(changed, now, levels_only=True)
        return True

    def turn(self, now: datetime) -> bool:
        """Begin the periods that have come, and look at the models; True if a reconcile is due."""
        turned = False
        for owned in self._ledgers.values():
            owned.models.forget(now)
            self._post(model_health.alerts(owned.models, self._known, now))
            turned |= bool(accounts.turn(owned, now))
        return turned

    def ask(self, now: datetime) -> Inquiry:
        """What ClickHouse is to be asked; `take` its answer for each partition, or `forget` it."""
        inquiry = Inquiry(self._topic, now, are_alerts_known=all(one.has_base for one in self._ledgers.values()))
        for owned in self._ledgers.values():
            for partition, position in owned.seen.items():
                inquiry.seen[partition] = max(position.last, inquiry.seen.get(partition, -1))
            for window, values in accounts.ask(owned, now).items():
                inquiry.windows.setdefault(window, set()).update(values)
        return inquiry

    def forget(self) -> None:
        for owned in self._ledgers.values():
            accounts.forget(owned)

    def take(self, partition: int, answer: SnapshotAnswer, now: datetime) -> None:
        """Set a partition's accounts to what ClickHouse holds, and what was counted since; nothing if it came later."""
        owned = self._ledgers.get(partition)
        if owned is None or owned.meanwhile is None:
            return
        models = model_health.History()
        for model, usages in answer.models.items():
            if partition_of(SubjectKind.MODEL.value, model, self._partitions) == partition:
                models.add(usages)
        models.settled = answer.models_settled
        metrics.DRIFT.inc(float(accounts.apply_snapshot(owned, owned.meanwhile, answer.base, models)))
        self._show_budgets()
        self._known |= answer.alerts
        self._known = {name: end for name, end in self._known.items() if end > now}
        self._post(accounts.alerts(owned.accounts.values(), self._known, now))
        # What was left from last time keeps its turn.
        self._untold |= {
            name: account
            for name, account in owned.accounts.items()
            if account.has_base and (account.told is None or account.told[1] != account.spent)
        }

    @property
    def has_more_to_tell(self) -> bool:
        return bool(self._untold)

    def tell_sums(self, count: int, now: datetime) -> None:
        """Put up to `count` of the sums that a reconcile has left to be told into the outbox."""
        names = list(islice(self._untold, count))
        accounts = [self._untold.pop(name) for name in names]
        self._tell([account for account in accounts if account is self._current(account)], now, levels_only=False)

    def _current(self, account: Account) -> Account | None:
        """The account of this budget now: it may have been changed, removed, or gone to another process."""
        found = (owned.accounts.get(account.budget.id) for owned in self._ledgers.values())
        return next(filter(None, found), None)

    def _tell(self, changed: list[Account], now: datetime, levels_only: bool) -> None:
        for status in accounts.statuses(changed, now, levels_only):
            self.outbox.append(OutboxMessage(status.budget_id, status))

    def _post(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            metrics.ALERTS.labels(alert.kind).inc()
            self.outbox.append(OutboxMessage(alert.id, alert))
