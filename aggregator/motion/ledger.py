"""The spend of the budgets of one partition: `state, increment -> state, alerts`, without Kafka or ClickHouse.

A ledger is a base that ClickHouse told, up to a *cut* of source offsets, and what increments added beyond the cut.
So an increment counts once, whatever comes twice, and a new base may take the place of the old one at any time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from aggregator.motion.alert import Alert, budget_alert
from aggregator.motion.budget import Budget, BudgetStatus, Level, Unit
from aggregator.motion.increment import Increment, Source, Usage
from aggregator.planner import EPOCH

MINUTE = timedelta(minutes=1)
NOTHING = Decimal(0)


class Position(NamedTuple):
    """The last offset of a source partition that is counted; the id is empty where only ClickHouse was asked."""

    topic_id: str
    last: int


def minutes(moment: datetime) -> int:
    """Since 1970; the minute that holds the moment."""
    return (moment - EPOCH) // MINUTE


@dataclass(slots=True)
class Account:
    """What a budget's scope has spent from minute `start` to before minute `end`."""

    budget: Budget
    start: int
    end: int
    spent: Decimal = NOTHING
    # What `budget-status` was told last.
    told: tuple[Level, Decimal] | None = None


def open_account(budget: Budget, now: datetime) -> Account:
    start, end = budget.span(now)
    return Account(budget, minutes(start), minutes(end))


def amount(unit: Unit, usage: Usage) -> Decimal:
    """What a budget of this unit counts of a usage."""
    if unit is Unit.DOLLARS:
        return usage.cost
    return Decimal(usage.tokens if unit is Unit.TOKENS else usage.requests)


@dataclass
class Ledger:
    """Accounts by budget id, which of them a scope has, and how far each source partition is counted."""

    accounts: dict[str, Account] = field(default_factory=dict)
    seen: dict[int, Position] = field(default_factory=dict)
    by_scope: defaultdict[tuple[str, str], list[Account]] = field(default_factory=lambda: defaultdict(list))

    def set_budgets(self, budgets: Iterable[Budget], now: datetime) -> list[Account]:
        """Take over the budgets that there are now; the accounts that are new or changed, which need a base."""
        wanted = {budget.id: budget for budget in budgets}
        for name in [name for name, account in self.accounts.items() if wanted.get(name) != account.budget]:
            account = self.accounts.pop(name)
            key = (account.budget.scope.kind.value, account.budget.scope.value)
            self.by_scope[key].remove(account)
            if not self.by_scope[key]:
                del self.by_scope[key]
        opened = [open_account(budget, now) for name, budget in wanted.items() if name not in self.accounts]
        for account in opened:
            self.accounts[account.budget.id] = account
            self.by_scope[(account.budget.scope.kind.value, account.budget.scope.value)].append(account)
        return opened


def is_seen(ledger: Ledger, source: Source) -> bool:
    """A batch is one insert, so a range whose beginning is counted is counted whole."""
    known = ledger.seen.get(source.partition)
    return known is not None and known.topic_id in ("", source.topic_id) and source.first <= known.last


def apply(ledger: Ledger, increment: Increment) -> list[Account] | None:
    """Count an increment in place; the accounts that it changed, or None if it was counted before."""
    source = increment.source
    if is_seen(ledger, source):
        return None
    ledger.seen[source.partition] = Position(source.topic_id, source.last)
    changed: dict[int, Account] = {}
    for usage in increment.usage:
        for account in ledger.by_scope.get((usage.kind, usage.value), ()):
            if account.start <= usage.minute < account.end:
                account.spent += amount(account.budget.unit, usage)
                changed[id(account)] = account
    return list(changed.values())


def turn(ledger: Ledger, now: datetime) -> list[Account]:
    """Begin new periods for accounts whose period is over; they need a base."""
    minute = minutes(now)
    turned = [account for account in ledger.accounts.values() if account.end <= minute]
    for account in turned:
        move(account, now)
        account.spent = NOTHING
    return turned


def move(account: Account, now: datetime) -> None:
    """Set the span to the one of now: for a new base, with which a rolling one moves on."""
    start, end = account.budget.span(now)
    account.start, account.end = minutes(start), minutes(end)


def rebase(ledger: Ledger, cut: Mapping[int, int], spent: Mapping[str, Decimal]) -> Decimal:
    """Take over what ClickHouse holds up to `cut` (offset by source partition) for some accounts, by budget id.

    The cut must not lie before what is seen. Returns by how much the accounts were off, as a sum of absolute values.
    """
    for partition, last in cut.items():
        known = ledger.seen.get(partition, Position("", -1))
        ledger.seen[partition] = Position(known.topic_id, max(last, known.last))
    drift = NOTHING
    for name, base in spent.items():
        account = ledger.accounts[name]
        drift += abs(base - account.spent)
        account.spent = base
    return drift


def alerts(accounts: Iterable[Account], known: dict[str, datetime], now: datetime) -> Iterator[Alert]:
    """Of the thresholds that are reached and not in `known` yet, which gets their ids and the end of their period."""
    minute = minutes(now)
    for account in accounts:
        budget = account.budget
        if minute >= account.end:
            # Its sum is of a period that is over; `turn` is about to come.
            continue
        for percent in budget.thresholds:
            if not budget.is_reached(percent, account.spent):
                break
            alert = budget_alert(budget, percent, account.spent, now)
            if alert.id not in known:
                known[alert.id] = alert.period_end
                yield alert


def statuses(accounts: Iterable[Account], now: datetime, levels_only: bool) -> Iterator[BudgetStatus]:
    """What `budget-status` does not know yet: with `levels_only` no mere change of the sum."""
    for account in accounts:
        budget, level = account.budget, account.budget.level(account.spent)
        if account.told == (level, account.spent) or (levels_only and account.told and account.told[0] is level):
            continue
        account.told = (level, account.spent)
        yield BudgetStatus(
            budget_id=budget.id,
            scope=budget.scope,
            level=level,
            unit=budget.unit,
            spent=account.spent,
            limit=budget.limit,
            resets_at=None if budget.rolling else EPOCH + account.end * MINUTE,
            updated_at=now,
        )
