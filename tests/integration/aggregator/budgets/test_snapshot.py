"""Snapshots of accounts, right to the last digit and exactly up to an offset watermark."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aggregator.budgets import snapshot
from aggregator.budgets.accounts import Account, Window, amount, open_account
from aggregator.budgets.budget import Budget, BudgetUnit
from aggregator.budgets.snapshot import Watermark
from aggregator.clickhouse.client import Warehouse
from aggregator.times import EPOCH
from tests.support.api import filled_warehouse
from tests.support.rows import Row, random_rows

# In the middle of an hour, so that the span has closed hours and a newest part.
NOW = datetime(2026, 2, 1, 12, 34, 56, tzinfo=UTC)
OLD_ROWS = random_rows(seed=3, count=600, start=NOW - timedelta(days=3), span=timedelta(days=3, minutes=5))
RECENT = timedelta(minutes=9)
ROWS = OLD_ROWS + random_rows(seed=4, count=60, start=NOW - RECENT, span=RECENT, first_offset=1000)
EVERYTHING = dict.fromkeys(range(3), 10**9)


@pytest.fixture(scope="module")
def filled(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, ROWS) as warehouse:
        yield warehouse


SUBJECTS = (
    {"kind": "total"},
    {"kind": "model", "value": "meta/llama: 'big'"},
    {"kind": "user", "value": 'o\'brien "x" \\ y'},
    {"kind": "api_key", "value": "key-1"},
    {"kind": "tag", "value": "b'c"},
    {"kind": "user", "value": "nobody"},
)


def accounts(**terms: object) -> list[Account]:
    made = []
    for number, scope in enumerate(SUBJECTS):
        for unit in BudgetUnit:
            given = {"id": f"{number}-{unit}", "scope": scope, "unit": unit, "limit": "1", "period": "day", **terms}
            made.append(open_account(Budget.model_validate(given), NOW))
    return made


def is_of(row: Row, account: Account) -> bool:
    scope = account.budget.scope
    names = {"model": row["model_name"], "user": row["user_id"], "api_key": row["api_key_id"], "total": ""}
    return scope.value in row["tags"] if scope.kind == "tag" else names[scope.kind] == scope.value


def brute_force(account: Account, rows: list[Row]) -> Decimal:
    mine = [row for row in rows if is_of(row, account)
            and account.start <= (row["timestamp"] - EPOCH) // timedelta(minutes=1) < account.end]  # fmt: skip
    if account.budget.unit is BudgetUnit.DOLLARS:
        return sum((row["cost"] or Decimal(0) for row in mine), Decimal(0))
    if account.budget.unit is BudgetUnit.REQUESTS:
        return Decimal(len(mine))
    return Decimal(sum((row["input_tokens"] or 0) + (row["output_tokens"] or 0) for row in mine))


def spent(warehouse: Warehouse, kept: list[Account], watermark: Watermark) -> dict[str, Decimal]:
    """By budget id; one query for each window, as an aggregator does it."""
    windows: dict[Window, set[str]] = {}
    for account in kept:
        windows.setdefault(account.window, set()).add(account.budget.scope.value)
    sums = {window: snapshot.read_spent(warehouse, window, values, watermark) for window, values in windows.items()}
    return {one.budget.id: amount(one.budget.unit, sums[one.window][one.budget.scope.value]) for one in kept}


@pytest.mark.parametrize("period", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("timezone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("rolling", [False, True])
def test_spend_is_that_of_the_rows(filled: Warehouse, period: str, timezone: str, rolling: bool) -> None:
    kept = accounts(period=period, timezone="UTC" if rolling else timezone, rolling=rolling)
    found = spent(filled, kept, Watermark("request-events", EVERYTHING, NOW))
    assert found == {account.budget.id: brute_force(account, ROWS) for account in kept}
    assert any(found.values()) or period == "hour"


# An hour after clocks have gone back in Berlin; rows of the two days before and the day after.
AUTUMN = datetime(2026, 10, 25, 2, 10, tzinfo=UTC)
AUTUMN_ROWS = random_rows(seed=5, count=400, start=AUTUMN - timedelta(days=2), span=timedelta(days=3))
# And just there, in both hours that the clock shows twice.
AUTUMN_ROWS += random_rows(seed=6, count=200, start=AUTUMN - timedelta(hours=3), span=timedelta(hours=5),
                           first_offset=1000)  # fmt: skip
LABELS: dict[str, Callable[[datetime], Any]] = {
    "hour": lambda local: (local.date(), local.hour, local.utcoffset()),
    "day": lambda local: local.date(),
    "week": lambda local: local.isocalendar()[:2],
    "month": lambda local: (local.year, local.month),
}


@pytest.fixture(scope="module")
def autumn(engine_url: str) -> Iterator[Warehouse]:
    with filled_warehouse(engine_url, AUTUMN_ROWS) as warehouse:
        yield warehouse


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
@pytest.mark.parametrize("period", ["hour", "day", "week", "month"])
@pytest.mark.parametrize(
    "now",
    [
        pytest.param(AUTUMN - timedelta(hours=2), id="in the first of two equal hours of Berlin"),
        pytest.param(AUTUMN - timedelta(hours=1), id="in the second"),
        pytest.param(AUTUMN, id="after them"),
    ],
)
def test_spend_where_clocks_go_back_is_what_the_calendar_on_the_wall_says(
    autumn: Warehouse, timezone: str, period: str, now: datetime
) -> None:
    def label(moment: datetime) -> Any:
        return LABELS[period](moment.astimezone(ZoneInfo(timezone)))

    rows = [row for row in AUTUMN_ROWS if label(row["timestamp"]) == label(now)]
    kept = [account for account in accounts(period=period, timezone=timezone) if account.budget.scope.kind == "total"]
    spent_by_unit = {
        BudgetUnit.DOLLARS: sum((row["cost"] or Decimal(0) for row in rows), Decimal(0)),
        BudgetUnit.TOKENS: Decimal(sum((row["input_tokens"] or 0) + (row["output_tokens"] or 0) for row in rows)),
        BudgetUnit.REQUESTS: Decimal(len(rows)),
    }
    assert rows
    found = spent(
        autumn, [open_account(each.budget, now) for each in kept], Watermark("request-events", EVERYTHING, now)
    )
    assert found == {each.budget.id: spent_by_unit[each.budget.unit] for each in kept}


def test_rows_beyond_the_watermark_are_left_to_their_increment(filled: Warehouse) -> None:
    """Of the newest part, and if they were stored a moment ago."""
    recent = [row for row in ROWS if row["created_at"] >= NOW - snapshot.IN_FLIGHT]
    offsets = {partition: min(r["source_offset"] for r in recent if r["source_partition"] == partition)
             for partition in range(3)}  # fmt: skip
    newest = NOW.replace(minute=0, second=0)
    beyond = [row for row in recent if row["source_offset"] > offsets[row["source_partition"]]
              and row["timestamp"] >= newest]  # fmt: skip
    assert beyond
    kept = accounts()
    found = spent(filled, kept, Watermark("request-events", offsets, NOW))
    rows = [row for row in ROWS if row not in beyond]
    assert found == {account.budget.id: brute_force(account, rows) for account in kept}
    other = spent(filled, kept, Watermark("another-topic", offsets, NOW))
    assert other == {account.budget.id: brute_force(account, ROWS) for account in kept}


def test_the_watermark_is_what_is_stored_or_seen(filled: Warehouse) -> None:
    recent = [row for row in ROWS if row["timestamp"] >= NOW.replace(minute=0, second=0)]
    newest = {}
    for row in sorted(recent, key=lambda row: (row["created_at"], row["source_offset"])):
        newest[row["source_partition"]] = row["source_offset"]
    watermark = snapshot.read_watermark(filled, "request-events", {0: 10**6, 7: 3}, NOW)
    assert watermark.offsets == {**newest, 0: 10**6, 7: 3}


def test_the_history_of_models_is_that_of_the_rows(filled: Warehouse) -> None:
    usages = snapshot.read_model_history(filled, Watermark("request-events", EVERYTHING, NOW))
    oldest = datetime(2026, 2, 1, 12, 30, tzinfo=UTC) - timedelta(minutes=185)
    # Rollups begin at a quarter of an hour.
    rows = [row for row in ROWS if row["timestamp"] >= oldest.replace(minute=30)]
    assert sum(usage.requests for usage in usages) == len(rows)
    assert sum(usage.errors for usage in usages) == sum(row["is_error"] for row in rows)
    assert sum(usage.duration_ms_sum for usage in usages) == sum(row["duration_ms"] or 0 for row in rows)
