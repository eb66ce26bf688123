"""What the budgets of one partition have spent: `ledger, increment -> ledger, alerts`, without Kafka or ClickHouse.

A ledger is a snapshot of ClickHouse, complete up to an *offset watermark* per source partition, plus the increments
beyond it. So an increment counts once, however often it is delivered, and a newer snapshot can replace the older one
at any time: increments that were counted since it was requested are counted again on top of it, as far as they lie
beyond its watermark.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from aggregator.budgets.alert import Alert, budget_alert
from aggregator.budgets.budget import Budget, BudgetLevel, BudgetStatus, BudgetUnit
from aggregator.budgets.increment import Increment, Source, Usage
from aggregator.budgets.model_health import ModelHistory
from aggregator.budgets.period import MINUTE, minutes
from aggregator.budgets.subject import SubjectKind
from aggregator.times import EPOCH

ZERO = Decimal(0)


class Position(NamedTuple):
    """The last counted offset of a source partition; the topic's id is empty where only a snapshot gave the offset."""

    topic_id: str
    offset: int


class Window(NamedTuple):
    """The subjects of a kind from minute `start` to before minute `end`, in minutes since 1970 in UTC."""

    kind: SubjectKind
    start: int
    end: int


class SpentSums(NamedTuple):
    """What a subject has used; `cost` in dollars."""

    requests: int = 0
    tokens: int = 0
    cost: Decimal = ZERO


@dataclass(frozen=True)
class Snapshot:
    """What ClickHouse holds: every row of the minutes before `closed_before`, and of later ones the rows up to the
    watermark.

    `watermark` is the last offset of each source partition. `sums` are by subject value, one for each requested value.
    """

    watermark: Mapping[int, int]
    closed_before: int
    sums: Mapping[Window, Mapping[str, SpentSums]]


@dataclass(slots=True)
class Account:
    """What the subject of a budget has spent from minute `start` to before minute `end`."""

    budget: Budget
    start: int
    end: int
    spent: Decimal = ZERO
    # Until then `spent` lacks what was stored before.
    has_snapshot: bool = False
    # The last level and sum that went to `budget-status`.
    published: tuple[BudgetLevel, Decimal] | None = None

    @property
    def window(self) -> Window:
        return Window(self.budget.scope.kind, self.start, self.end)


def open_account(budget: Budget, now: datetime) -> Account:
    start, end = budget.span(now)
    return Account(budget, minutes(start), minutes(end))


def amount(unit: BudgetUnit, sums: Usage | SpentSums) -> Decimal:
    """How much a usage is in the unit of a budget."""
    if unit is BudgetUnit.DOLLARS:
        return sums.cost
    return Decimal(sums.tokens if unit is BudgetUnit.TOKENS else sums.requests)


@dataclass
class PendingSnapshot:
    """The positions when a snapshot was requested, and the increments that were counted since."""

    positions: dict[int, Position]
    counted: list[Increment] = field(default_factory=list)


@dataclass
class Ledger:
    """Accounts by budget id and by subject, the position in each source partition, and the history of the models.

    Usage of minutes before `closed_before` is left to the next snapshot: offsets cannot tell whether the current one
    has it.
    """

    accounts: dict[str, Account] = field(default_factory=dict)
    by_subject: defaultdict[tuple[str, str], list[Account]] = field(default_factory=lambda: defaultdict(list))
    positions: dict[int, Position] = field(default_factory=dict)
    closed_before: int = 0
    models: ModelHistory = field(default_factory=ModelHistory)
    has_snapshot: bool = False
    # None while no snapshot is requested.
    pending: PendingSnapshot | None = None

    def open(self, budget: Budget, now: datetime) -> Account:
        """Open an account, which needs a snapshot; one of the same name must be closed before."""
        account = self.accounts[budget.id] = open_account(budget, now)
        self.by_subject[_subject_key(account)].append(account)
        return account

    def close(self, name: str) -> None:
        account = self.accounts.pop(name)
        of_subject = self.by_subject[_subject_key(account)]
        of_subject.remove(account)
        if not of_subject:
            del self.by_subject[_subject_key(account)]


def _subject_key(account: Account) -> tuple[str, str]:
    subject = account.budget.scope
    return subject.kind.value, subject.value


def is_counted(ledger: Ledger, source: Source) -> bool:
    """A batch is one insert, so if the first offset of its range is counted, the whole range is."""
    position = ledger.positions.get(source.partition)
    return position is not None and position.topic_id in ("", source.topic_id) and source.first <= position.offset


def apply_increment(ledger: Ledger, increment: Increment) -> list[Account] | None:
    """Count an increment in place. Returns the accounts that changed, or None if it was counted before."""
    source = increment.source
    if is_counted(ledger, source):
        return None
    ledger.positions[source.partition] = Position(source.topic_id, source.last)
    ledger.models.add(increment.usage)
    if ledger.pending is not None:
        ledger.pending.counted.append(increment)
    changed: dict[int, Account] = {}
    for usage in increment.usage:
        for account in ledger.by_subject.get((usage.kind, usage.value), ()):
            if usage.minute >= ledger.closed_before and account.start <= usage.minute < account.end:
                account.spent += amount(account.budget.unit, usage)
                changed[id(account)] = account
    return list(changed.values())


def roll_over(ledger: Ledger, now: datetime) -> list[Account]:
    """Begin the new period of each account whose period is over. Returns these accounts; they need a snapshot."""
    minute = minutes(now)
    rolled = [account for account in ledger.accounts.values() if account.end <= minute]
    for account in rolled:
        _set_period(account, now)
        account.spent = ZERO
    return rolled


def _set_period(account: Account, now: datetime) -> None:
    start, end = account.budget.span(now)
    account.start, account.end = minutes(start), minutes(end)


def begin_snapshot(ledger: Ledger, now: datetime) -> dict[Window, set[str]]:
    """Record the increments that are counted from here on, until `apply_snapshot` or `discard_snapshot`.

    Returns the windows to request, with the subject values of each: the current periods, and the rolling ones that
    end now.
    """
    roll_over(ledger, now)
    ledger.pending = PendingSnapshot(dict(ledger.positions))
    windows: defaultdict[Window, set[str]] = defaultdict(set)
    for account in ledger.accounts.values():
        if account.budget.rolling:
            _set_period(account, now)
        windows[account.window].add(account.budget.scope.value)
    return windows


def discard_snapshot(ledger: Ledger) -> None:
    """ClickHouse did not answer: the sums stay as they are."""
    ledger.pending = None


def apply_snapshot(ledger: Ledger, pending: PendingSnapshot, snapshot: Snapshot, models: ModelHistory) -> Decimal:
    """Replace the sums by those of the snapshot, and count again the pending increments that it lacks.

    Accounts that the snapshot has no sum for stay as they are, such as those that were opened after the request.
    Returns the drift: by how much the accounts that had a snapshot before were off, as a sum of absolute values.
    """
    replaced, kept = [], []
    for account in ledger.accounts.values():
        sums = snapshot.sums.get(account.window, {}).get(account.budget.scope.value)
        if sums is None:
            kept.append((account, account.spent))
            continue
        if account.has_snapshot:
            replaced.append((account, account.spent))
        account.spent, account.has_snapshot = amount(account.budget.unit, sums), True
    # A snapshot knows no topic ids. They are kept, so that a topic that was recreated is recognised.
    ids = {partition: position.topic_id for partition, position in pending.positions.items()}
    ledger.positions = {
        partition: Position(ids.get(partition, ""), offset) for partition, offset in snapshot.watermark.items()
    }
    ledger.closed_before, ledger.models = snapshot.closed_before, models
    ledger.has_snapshot, ledger.pending = True, None
    for increment in pending.counted:
        apply_increment(ledger, increment)
    for account, spent in kept:
        account.spent = spent
    return sum((abs(account.spent - spent) for account, spent in replaced if account.spent != spent), ZERO)


def new_alerts(accounts: Iterable[Account], known: dict[str, datetime], now: datetime) -> Iterator[Alert]:
    """An alert for each threshold that is reached and not in `known`, where its id and its period's end are added."""
    minute = minutes(now)
    for account in accounts:
        budget = account.budget
        if not account.has_snapshot or minute >= account.end:
            # The sum is of a period that is over; `roll_over` comes next.
            continue
        for percent in budget.thresholds:
            if not budget.is_reached(percent, account.spent):
                break
            alert = budget_alert(budget, percent, account.spent, now)
            if alert.id not in known:
                known[alert.id] = alert.period_end
                yield alert


def changed_statuses(accounts: Iterable[Account], now: datetime, levels_only: bool) -> Iterator[BudgetStatus]:
    """The statuses that differ from what was published last; with `levels_only` those whose level differs."""
    for account in accounts:
        budget, level = account.budget, account.budget.level(account.spent)
        is_known = account.published == (level, account.spent)
        is_same_level = account.published is not None and account.published[0] is level
        if not account.has_snapshot or is_known or (levels_only and is_same_level):
            continue
        account.published = (level, account.spent)
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
