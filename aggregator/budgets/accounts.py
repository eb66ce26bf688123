"""The spend of the budgets of one partition: `state, increment -> state, alerts`, without Kafka or ClickHouse.

A ledger is a base that ClickHouse told, up to a *cut* of source offsets, and what increments added beyond the cut.
So an increment counts once, whatever comes twice, and a new base may take the place of the old one at any time: what
was counted since ClickHouse was asked is counted again on top of the answer, as far as it lies beyond the new cut.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from aggregator.budgets.alert import Alert, budget_alert
from aggregator.budgets.budget import Budget, BudgetStatus, BudgetUnit, Level
from aggregator.budgets.increment import Increment, Source, Usage
from aggregator.budgets.model_health import History
from aggregator.budgets.period import MINUTE, minutes
from aggregator.budgets.subject import SubjectKind
from aggregator.rollups.planner import EPOCH

NOTHING = Decimal(0)


class Position(NamedTuple):
    """The last offset of a source partition that is counted; the id is empty where only ClickHouse was asked."""

    topic_id: str
    last: int


class Window(NamedTuple):
    """The scopes of a kind from minute `start` to before minute `end`."""

    kind: SubjectKind
    start: int
    end: int


class SpentSums(NamedTuple):
    """What a scope has used; `cost` in dollars."""

    requests: int = 0
    tokens: int = 0
    cost: Decimal = NOTHING


@dataclass(frozen=True)
class Snapshot:
    """What ClickHouse holds: all of the minutes before `settled`, and of later ones what is up to the cut.

    `lasts` is the cut, an offset by source partition; `sums` are by scope value, and have each that was asked for.
    """

    lasts: Mapping[int, int]
    settled: int
    sums: Mapping[Window, Mapping[str, SpentSums]]


@dataclass(slots=True)
class Account:
    """What a budget's scope has spent from minute `start` to before minute `end`."""

    budget: Budget
    start: int
    end: int
    spent: Decimal = NOTHING
    # Without one the sum says nothing yet.
    has_base: bool = False
    # What `budget-status` was told last.
    told: tuple[Level, Decimal] | None = None

    @property
    def window(self) -> Window:
        return Window(self.budget.scope.kind, self.start, self.end)


def open_account(budget: Budget, now: datetime) -> Account:
    start, end = budget.span(now)
    return Account(budget, minutes(start), minutes(end))


def amount(unit: BudgetUnit, sums: Usage | SpentSums) -> Decimal:
    """What a budget of this unit counts of a usage."""
    if unit is BudgetUnit.DOLLARS:
        return sums.cost
    return Decimal(sums.tokens if unit is BudgetUnit.TOKENS else sums.requests)


@dataclass
class Meanwhile:
    """How far was counted when ClickHouse was asked, and what was counted since."""

    seen: dict[int, Position]
    counted: list[Increment] = field(default_factory=list)


@dataclass
class Ledger:
    """Accounts by budget id, which of them a scope has, how far each source partition is counted, and the models.

    Usage of minutes before `settled` is left to the next base: whether this one has it cannot be told by offsets.
    """

    accounts: dict[str, Account] = field(default_factory=dict)
    by_scope: defaultdict[tuple[str, str], list[Account]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[int, Position] = field(default_factory=dict)
    settled: int = 0
    models: History = field(default_factory=History)
    has_base: bool = False
    # None while ClickHouse is not asked.
    meanwhile: Meanwhile | None = None

    def open(self, budget: Budget, now: datetime) -> Account:
        """Begin an account, which needs a base; one of the same name must be closed before."""
        account = self.accounts[budget.id] = open_account(budget, now)
        self.by_scope[_key(account)].append(account)
        return account

    def close(self, name: str) -> None:
        account = self.accounts.pop(name)
        of_scope = self.by_scope[_key(account)]
        of_scope.remove(account)
        if not of_scope:
            del self.by_scope[_key(account)]


def _key(account: Account) -> tuple[str, str]:
    scope = account.budget.scope
    return scope.kind.value, scope.value


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
    ledger.models.add(increment.usage)
    if ledger.meanwhile is not None:
        ledger.meanwhile.counted.append(increment)
    changed: dict[int, Account] = {}
    for usage in increment.usage:
        for account in ledger.by_scope.get((usage.kind, usage.value), ()):
            if usage.minute >= ledger.settled and account.start <= usage.minute < account.end:
                account.spent += amount(account.budget.unit, usage)
                changed[id(account)] = account
    return list(changed.values())


def turn(ledger: Ledger, now: datetime) -> list[Account]:
    """Begin new periods for accounts whose period is over; they need a base."""
    minute = minutes(now)
    turned = [account for account in ledger.accounts.values() if account.end <= minute]
    for account in turned:
        _move(account, now)
        account.spent = NOTHING
    return turned


def _move(account: Account, now: datetime) -> None:
    start, end = account.budget.span(now)
    account.start, account.end = minutes(start), minutes(end)


def ask(ledger: Ledger, now: datetime) -> dict[Window, set[str]]:
    """Begin to note what is counted, until `rebase` or `forget`. Returns the scopes whose sums are to be asked for:
    of periods of now, and of rolling ones that end now."""
    turn(ledger, now)
    ledger.meanwhile = Meanwhile(dict(ledger.seen))
    wanted: defaultdict[Window, set[str]] = defaultdict(set)
    for account in ledger.accounts.values():
        if account.budget.rolling:
            _move(account, now)
        wanted[account.window].add(account.budget.scope.value)
    return wanted


def forget(ledger: Ledger) -> None:
    """ClickHouse did not answer: the old base stays."""
    ledger.meanwhile = None


def apply_snapshot(ledger: Ledger, meanwhile: Meanwhile, base: Snapshot, models: History) -> Decimal:
    """Take over the answer to `ask`, and count again what came meanwhile and is not in it.

    Accounts of which the answer says nothing, such as those that were opened meanwhile, stay as they are. Returns by
    how much those that had a base were off, as a sum of absolute values.
    """
    based, kept = [], []
    for account in ledger.accounts.values():
        found = base.sums.get(account.window, {}).get(account.budget.scope.value)
        if found is None:
            kept.append((account, account.spent))
            continue
        if account.has_base:
            based.append((account, account.spent))
        account.spent, account.has_base = amount(account.budget.unit, found), True
    # The id of a topic stays known, so that one that was made anew is noticed.
    ids = {partition: position.topic_id for partition, position in meanwhile.seen.items()}
    ledger.seen = {partition: Position(ids.get(partition, ""), last) for partition, last in base.lasts.items()}
    ledger.settled, ledger.models, ledger.has_base, ledger.meanwhile = base.settled, models, True, None
    for increment in meanwhile.counted:
        apply(ledger, increment)
    for account, spent in kept:
        account.spent = spent
    return sum((abs(account.spent - spent) for account, spent in based if account.spent != spent), NOTHING)


def alerts(accounts: Iterable[Account], known: dict[str, datetime], now: datetime) -> Iterator[Alert]:
    """Of the thresholds that are reached and not in `known` yet, which gets their ids and the end of their period."""
    minute = minutes(now)
    for account in accounts:
        budget = account.budget
        if not account.has_base or minute >= account.end:
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
        is_known = account.told == (level, account.spent)
        if not account.has_base or is_known or (levels_only and account.told and account.told[0] is level):
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
