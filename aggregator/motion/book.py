"""What an aggregator keeps: a ledger per partition that it owns, the behaviour of models, and what is to be sent."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from aggregator.motion import health, ledger, metrics, reconcile
from aggregator.motion.alert import Alert
from aggregator.motion.budget import Budget, BudgetStatus
from aggregator.motion.increment import Increment
from aggregator.motion.ledger import Account, Ledger
from aggregator.motion.scope import partition_of
from aggregator.warehouse import Warehouse


@dataclass(frozen=True)
class Message:
    """What is to be produced; no value removes a key from a compacted topic."""

    key: str
    value: Alert | BudgetStatus | None


class Book:
    """Not for two threads at once: whoever uses it holds a lock around each call."""

    def __init__(self, topic: str, partitions: int) -> None:
        self._topic = topic
        self._partitions = partitions
        self._budgets: dict[int, list[Budget]] = {}
        self._ledgers: dict[int, Ledger] = {}
        self._history = health.History()
        self._known: dict[str, datetime] = {}
        self._has_base: set[int] = set()
        self.outbox: deque[Message] = deque()
        # Budgets whose sum `budget-status` does not know yet, which is less urgent, by id.
        self._untold: dict[str, Account] = {}

    @property
    def accounts(self) -> list[Account]:
        return [account for owned in self._ledgers.values() for account in owned.accounts.values()]

    def set_budgets(self, budgets: Iterable[Budget], now: datetime) -> bool:
        """Take over the budgets that there are now; True if a reconcile is due."""
        self._budgets = {}
        names = set()
        for budget in budgets:
            partition = partition_of(budget.scope.kind.value, budget.scope.value, self._partitions)
            self._budgets.setdefault(partition, []).append(budget)
            names.add(budget.id)
        gone = {account.budget.id for account in self.accounts} - names
        self.outbox.extend(Message(name, None) for name in gone)
        opened = [
            owned.set_budgets(self._budgets.get(partition, []), now) for partition, owned in self._ledgers.items()
        ]
        return any(opened)

    def own(self, partitions: set[int], now: datetime) -> bool:
        """Take over partitions and let go of others; True if a reconcile is due."""
        for partition in set(self._ledgers) - partitions:
            del self._ledgers[partition]
        for partition in partitions - set(self._ledgers):
            self._ledgers[partition] = Ledger()
            self._ledgers[partition].set_budgets(self._budgets.get(partition, []), now)
        self._has_base &= partitions
        return bool(partitions - self._has_base)

    def needs_base(self, partition: int) -> bool:
        return partition not in self._has_base

    def count(self, partition: int, increment: Increment, now: datetime) -> bool:
        """Count an increment of a partition that has a base; False if it was counted before, or is not of our topic."""
        if increment.source.topic != self._topic:
            return False
        changed = ledger.apply(self._ledgers[partition], increment)
        if changed is None:
            return False
        self._history.add(increment.usage)
        self._post(ledger.alerts(changed, self._known, now))
        self._tell(changed, now, levels_only=True)
        return True

    def turn(self, now: datetime) -> bool:
        """Begin the periods that have come, and look at the models; True if a reconcile is due."""
        self._history.forget(now)
        self._post(health.alerts(self._history, self._known, now))
        turned = [ledger.turn(owned, now) for owned in self._ledgers.values()]
        return any(turned)

    def reconcile(self, warehouse: Warehouse, now: datetime) -> None:
        """Set every account to what ClickHouse holds. Blocks; raises what the warehouse raises."""
        owned = dict(self._ledgers)
        seen = [{p: position.last for p, position in one.seen.items()} for one in owned.values()]
        cut = reconcile.take_cut(warehouse, self._topic, seen, now)
        for account in self.accounts:
            ledger.move(account, now)
        bases = reconcile.spent(warehouse, self.accounts, cut)
        usages = reconcile.model_history(warehouse, cut)
        self._known |= reconcile.known_alerts(warehouse, now)
        self._known = {name: end for name, end in self._known.items() if end > now}
        for partition, one in owned.items():
            drift = ledger.rebase(one, cut.lasts, {name: bases[name] for name in one.accounts})
            if partition in self._has_base:
                metrics.DRIFT.inc(float(drift))
        self._history = health.History()
        self._history.add(u for u in usages if partition_of(u.kind, u.value, self._partitions) in owned)
        self._has_base = set(owned)
        metrics.BUDGETS.set(len(bases))
        self._post(ledger.alerts(self.accounts, self._known, now))
        # What was left from last time stays first; what is known already takes no turn.
        fresh = {a.budget.id: a for a in self.accounts if a.told is None or a.told[1] != a.spent}
        self._untold = {name: fresh[name] for name in self._untold if name in fresh} | fresh

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

    def _tell(self, accounts: list[Account], now: datetime, levels_only: bool) -> None:
        for status in ledger.statuses(accounts, now, levels_only):
            self.outbox.append(Message(status.budget_id, status))

    def _post(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            metrics.ALERTS.labels(alert.kind).inc()
            self.outbox.append(Message(alert.id, alert))
