"""A ledger against a brute-force count of the records: repeated increments, periods, thresholds and budgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator.budgets import accounts
from aggregator.budgets.accounts import Ledger
from aggregator.budgets.budget import Budget, BudgetLevel, BudgetUnit
from aggregator.budgets.increment import Increment, Source, Usage
from aggregator.budgets.period import BudgetPeriod, minutes

NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
USERS = ("ada", "ben")
PARTITIONS = 2


def budget(name: Any = "b", **terms: Any) -> Budget:
    given = {"id": name, "scope": {"kind": "total"}, "unit": "dollars", "limit": "10", "period": "day", **terms}
    return Budget.model_validate(given)


@dataclass(frozen=True)
class Event:
    user: str
    minute: int
    tokens: int
    cost: Decimal


events = st.builds(
    Event,
    user=st.sampled_from(USERS),
    # From the day before to the day after.
    minute=st.integers(minutes(NOW) - 2000, minutes(NOW) + 2000),
    tokens=st.integers(0, 2**33),
    cost=st.decimals(0, 10**6, places=12),
)
batches = st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.lists(events, min_size=1, max_size=3)), max_size=8)
budgets = st.lists(
    st.builds(
        budget,
        name=st.sampled_from(["a", "b", "c", "d"]),
        scope=st.sampled_from([{"kind": "total"}, *({"kind": "user", "value": user} for user in USERS)]),
        unit=st.sampled_from(BudgetUnit),
        limit=st.integers(1, 10**6).map(str),
        period=st.sampled_from(BudgetPeriod),
        timezone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    ),
    unique_by=lambda one: one.id,
    min_size=1,
)


def usages(records: Sequence[Event]) -> list[Usage]:
    """The usage that ingest reports for a batch: the total and by user."""
    return [
        Usage(kind, value, event.minute, 1, 0, 0, 0, 0, event.tokens, event.cost, 0, 0)
        for event in records
        for kind, value in (("total", ""), ("user", event.user))
    ]


def increments(found: Sequence[tuple[int, list[Event]]]) -> list[Increment]:
    """Offsets go up in each partition."""
    ends, made = [0] * PARTITIONS, []
    for partition, records in found:
        first, ends[partition] = ends[partition], ends[partition] + len(records)
        source = Source(topic="t", topic_id="id", partition=partition, first=first, last=ends[partition] - 1)
        made.append(Increment(source, usages(records)))
    return made


def ledger_of(kept: Sequence[Budget], has_snapshot: bool = True) -> Ledger:
    state = Ledger(has_snapshot=has_snapshot)
    for one in kept:
        state.open(one, NOW).has_snapshot = has_snapshot
    return state


def brute_force(one: Budget, records: Sequence[Event]) -> Decimal:
    start, end = one.span(NOW)
    mine = [
        event
        for event in records
        if minutes(start) <= event.minute < minutes(end) and one.scope.value in ("", event.user)
    ]
    if one.unit is BudgetUnit.DOLLARS:
        return sum((event.cost for event in mine), Decimal(0))
    return Decimal(sum(event.tokens for event in mine) if one.unit is BudgetUnit.TOKENS else len(mine))


def spent(state: Ledger) -> dict[str, Decimal]:
    return {name: account.spent for name, account in state.accounts.items()}


@settings(deadline=None)
@given(batches, budgets, st.data())
def test_each_batch_counts_once_however_often_it_comes(
    found: list[tuple[int, list[Event]]], kept: list[Budget], data: st.DataObject
) -> None:
    state, made = ledger_of(kept), increments(found)
    for position, increment in enumerate(made):
        assert accounts.apply_increment(state, increment) is not None
        repeats = data.draw(st.lists(st.sampled_from(made[: position + 1]), max_size=2))
        assert [accounts.apply_increment(state, repeat) for repeat in repeats] == [None] * len(repeats)
    records = [event for _, batch in found for event in batch]
    assert spent(state) == {one.id: brute_force(one, records) for one in kept}


def test_a_recreated_topic_counts_from_its_first_offset() -> None:
    state = ledger_of([budget(unit="requests")])
    event = Event("ada", minutes(NOW), 1, Decimal(1))
    for topic_id in ("old", "new"):
        source = Source(topic="t", topic_id=topic_id, partition=0, first=0, last=9)
        accounts.apply_increment(state, Increment(source, usages([event])))
        assert accounts.apply_increment(state, Increment(source, usages([event]))) is None
    assert spent(state) == {"b": Decimal(2)}


def account_with(amount: str, **terms: object) -> tuple[Ledger, accounts.Account]:
    state = ledger_of([budget(**terms)])
    [account] = state.accounts.values()
    account.spent = Decimal(amount)
    return state, account


def percents(account: accounts.Account, known: dict[str, datetime], now: datetime = NOW) -> list[int]:
    return [alert.threshold_percent for alert in accounts.new_alerts([account], known, now)]


@pytest.mark.parametrize(
    ("amount", "expected", "level"),
    [
        pytest.param("4.999999999999", [], BudgetLevel.OK, id="a picodollar below the first"),
        pytest.param("5", [50], BudgetLevel.WARNING, id="exactly the first"),
        pytest.param("9.999999999999", [50, 80], BudgetLevel.WARNING, id="a picodollar below the limit"),
        pytest.param("10", [50, 80, 100], BudgetLevel.EXCEEDED, id="exactly the limit"),
    ],
)
def test_thresholds_are_exact_and_speak_once(amount: str, expected: list[int], level: BudgetLevel) -> None:
    _, account = account_with(amount)
    known: dict[str, datetime] = {}
    assert percents(account, known) == expected
    assert percents(account, known) == []
    assert [status.level for status in accounts.changed_statuses([account], NOW, levels_only=True)] == [level]
    assert list(accounts.changed_statuses([account], NOW, levels_only=True)) == []


def test_a_changed_limit_is_another_fact_and_a_changed_threshold_is_not() -> None:
    known: dict[str, datetime] = {}
    assert percents(account_with("9")[1], known) == [50, 80]
    assert percents(account_with("9", thresholds=[50, 85])[1], known) == [85]
    assert percents(account_with("9", limit="18")[1], known) == [50]


def test_a_new_period_begins_at_nothing_and_may_speak_again() -> None:
    state, account = account_with("10", timezone="Europe/Berlin")
    known: dict[str, datetime] = {}
    assert percents(account, known) == [50, 80, 100]
    # 23:59 and 24:00 in Berlin, on the day that has 23 hours.
    before, after = datetime(2026, 3, 29, 21, 59, tzinfo=UTC), datetime(2026, 3, 29, 22, 0, tzinfo=UTC)
    assert accounts.roll_over(state, before) == []
    # Between the end of the period and the roll-over the old sum says nothing about the new one.
    assert percents(account, known, after) == []
    assert accounts.roll_over(state, after) == [account]
    assert account.spent == 0
    account.spent = Decimal(5)
    assert percents(account, known, after) == [50]


@pytest.mark.parametrize(
    ("period", "timezone", "last", "next_"),
    [
        pytest.param("hour", "Europe/Berlin", "2026-10-25T02:59+02:00", "2026-10-25T02:00+01:00", id="two equal hours"),
        pytest.param("hour", "Europe/Berlin", "2026-03-29T01:59+01:00", "2026-03-29T03:00+02:00", id="a skipped hour"),
        pytest.param("hour", "Australia/Lord_Howe", "2026-04-05T01:59+10:30", "2026-04-05T02:00+10:30",
                     id="an hour of 90 minutes"),
        pytest.param("day", "Europe/Berlin", "2026-10-25T23:59+01:00", "2026-10-26T00:00+01:00", id="a long day"),
        pytest.param("day", "Africa/Cairo", "2026-04-23T23:59+02:00", "2026-04-24T01:00+03:00",
                     id="a day without midnight"),
        pytest.param("day", "Asia/Kolkata", "2026-03-31T23:59+05:30", "2026-04-01T00:00+05:30", id="a half-hour zone"),
        pytest.param("week", "America/New_York", "2026-11-01T23:59-05:00", "2026-11-02T00:00-05:00", id="a long week"),
        pytest.param("month", "America/St_Johns", "2026-10-31T23:59-02:30", "2026-11-01T00:00-02:30",
                     id="a month of a half-hour zone"),
        pytest.param("month", "Europe/Berlin", "2026-10-31T23:59+01:00", "2026-11-01T00:00+01:00",
                     id="a month in which clocks go back"),
    ],
)  # fmt: skip
def test_at_the_edge_of_a_period_each_side_counts_and_speaks_for_itself(
    period: str, timezone: str, last: str, next_: str
) -> None:
    before, after = (datetime.fromisoformat(each).astimezone(UTC) for each in (last, next_))
    assert after - before == timedelta(minutes=1)
    state = Ledger(has_snapshot=True)
    terms = {"unit": "requests", "limit": "2", "period": period, "timezone": timezone, "thresholds": [100]}
    account = state.open(budget(**terms), before)
    account.has_snapshot = True
    known: dict[str, datetime] = {}
    offsets = iter(range(99))

    def spent_after(request: datetime, now: datetime) -> tuple[int, list[int]]:
        """The sum with a request of this moment, and the thresholds that give an alert then."""
        source = Source(topic="t", topic_id="id", partition=0, first=(offset := next(offsets)), last=offset)
        accounts.apply_increment(state, Increment(source, usages([Event("ada", minutes(request), 1, Decimal(1))])))
        return int(account.spent), percents(account, known, now)

    assert spent_after(before, now=before) == (1, [])
    # Of the next period, which has not come yet.
    assert spent_after(after, now=before) == (1, [])
    assert spent_after(before, now=before) == (2, [100])
    assert accounts.roll_over(state, before) == []
    assert accounts.roll_over(state, after) == [account]
    # Late, of the period that is over.
    assert spent_after(before, now=after) == (0, [])
    assert spent_after(after, now=after) == (1, [])
    assert spent_after(after, now=after) == (2, [100])
    assert len(known) == 2


def test_a_rolling_budget_speaks_once_in_a_calendar_period() -> None:
    _, account = account_with("10", rolling=True, period="hour")
    known: dict[str, datetime] = {}
    assert percents(account, known) == [50, 80, 100]
    assert percents(account, known, NOW + timedelta(minutes=59)) == []
    assert percents(account, known, NOW + timedelta(minutes=60)) == [50, 80, 100]


def test_a_rolling_budget_is_asked_for_up_to_now_and_a_calendar_one_from_its_beginning() -> None:
    state = ledger_of([budget(rolling=True, period="hour"), budget("c", period="day")])
    later = NOW + timedelta(minutes=7)
    starts = {minutes(later - timedelta(hours=1)), minutes(NOW.replace(hour=0))}
    assert {window.start for window in accounts.begin_snapshot(state, later)} == starts


def test_an_account_that_is_closed_leaves_nothing_behind() -> None:
    state = ledger_of([budget("a"), budget("b")])
    state.close("a")
    assert [account.budget.id for account in state.by_subject["total", ""]] == ["b"]
    state.close("b")
    assert not state.accounts
    assert not state.by_subject


def test_an_account_without_a_snapshot_gives_no_alert_and_no_status() -> None:
    _, account = account_with("10")
    account.has_snapshot = False
    assert percents(account, {}) == []
    assert list(accounts.changed_statuses([account], NOW, levels_only=False)) == []


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        pytest.param({"limit": "0"}, "limit", id="no limit"),
        pytest.param({"limit": "NaN"}, "limit", id="not a number"),
        pytest.param({"limit": "1e-13"}, "limit", id="less than a picodollar"),
        pytest.param({"limit": "1.5", "unit": "tokens"}, "", id="half a token"),
        pytest.param({"timezone": "Europe/Berlim"}, "timezone", id="unknown zone"),
        pytest.param({"rolling": True, "timezone": "Europe/Berlin"}, "", id="rolling in a zone"),
        pytest.param({"thresholds": []}, "thresholds", id="no threshold"),
        pytest.param({"thresholds": [80, 50]}, "thresholds", id="thresholds that fall"),
        pytest.param({"thresholds": [50, 50]}, "thresholds", id="a threshold twice"),
        pytest.param({"thresholds": [0]}, "thresholds.0", id="threshold 0"),
        pytest.param({"scope": {"kind": "user"}}, "scope", id="a user without name"),
        pytest.param({"scope": {"kind": "total", "value": "x"}}, "scope", id="a total with a name"),
        pytest.param({"scope": {"kind": "team", "value": "x"}}, "scope.kind", id="unknown scope"),
        pytest.param({"period": "year"}, "period", id="unknown period"),
        pytest.param({"name": "a/b"}, "id", id="a name with a slash"),
        pytest.param({"color": "red"}, "color", id="an unknown field"),
    ],
)
def test_a_budget_that_is_not_right_is_refused_by_field(terms: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        budget(**terms)
    assert ".".join(map(str, raised.value.errors()[0]["loc"])) == field
