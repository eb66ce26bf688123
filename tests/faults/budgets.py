"""Spend in windows while workers and aggregators are killed: in the end what ClickHouse has, to the last digit."""

import asyncio
import json
import random
import signal
import subprocess
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aggregator.budgets.accounts import open_account
from aggregator.budgets.budget import Budget, BudgetUnit
from aggregator.budgets.period import MINUTE
from cli.adapters.budget_store import KafkaBudgets
from tests.faults.stack import PATIENCE_SECONDS, Run, StuckError
from tests.faults.verdict import Verdict

USERS = ("ann", "ben", "cho")
SCOPES: tuple[dict[str, str], ...] = (
    {"kind": "total"},
    {"kind": "user", "value": "ann"},
    {"kind": "api_key", "value": "key-1"},
    {"kind": "model", "value": "gpt-4o"},
    {"kind": "tag", "value": "batch"},
)
CONDITIONS = {"total": "1", "user": "user_id = {value:String}", "api_key": "api_key_id = {value:String}",
              "model": "model_name = {value:String}", "tag": "has(tags, {value:String})"}  # fmt: skip
SUMS = {
    BudgetUnit.DOLLARS: "sum(ifNull(cost, 0))",
    BudgetUnit.TOKENS: "sum(ifNull(input_tokens, 0)) + sum(ifNull(output_tokens, 0))",
    BudgetUnit.REQUESTS: "count()",
}
ROLLUP_SUMS = {
    BudgetUnit.DOLLARS: "sum(cost)",
    BudgetUnit.TOKENS: "sum(input_tokens) + sum(output_tokens)",
    BudgetUnit.REQUESTS: "sum(requests)",
}
ROLLUPS = {"total": "rollup_model", "model": "rollup_model", "user": "rollup_user", "api_key": "rollup_user"}


def budgets(name: str) -> list[Budget]:
    return [
        Budget.model_validate(
            {"id": f"{name}-{number}-{unit}", "scope": scope, "unit": unit, "limit": "1000000000000", "period": period,
             "timezone": "Europe/Berlin"}
        )
        for number, scope in enumerate(SCOPES)
        for unit, period in zip(BudgetUnit, ("month", "day", "week"), strict=True)
    ]  # fmt: skip


def event(rng: random.Random, key: str) -> bytes:
    value = {
        "request_id": key,
        "timestamp": datetime.now(UTC).isoformat(),
        "model_name": rng.choice(("gpt-4o", "claude-sonnet-4-5", "no-such-model")),
        "status": "success",
        "user_id": rng.choice(USERS),
        "api_key_id": f"key-{rng.randrange(3)}",
        "tags": rng.choice(([], ["batch"], ["batch", "x"])),
        "input_tokens": rng.randrange(5000),
        "output_tokens": rng.randrange(500),
    }
    return json.dumps(value).encode()


def stored(run: Run, budget: Budget, now: datetime) -> tuple[Decimal, Decimal]:
    """What raw rows and, where one knows the scope, a rollup hold in the budget's period of now."""
    account = open_account(budget, now)
    values = {
        "start": int((account.start * MINUTE).total_seconds()),
        "end": int((account.end * MINUTE).total_seconds()),
        "value": budget.scope.value,
    }

    def total(table: str, column: str, what: str) -> Decimal:
        sql = f"SELECT {what} AS spent FROM {table} WHERE {CONDITIONS[budget.scope.kind]}"
        sql += f" AND {column} >= toDateTime({{start:UInt32}}, 'UTC') AND {column} < toDateTime({{end:UInt32}}, 'UTC')"
        return Decimal(run.warehouse.query(sql, values)[0]["spent"])

    raw = total("request_logs", "timestamp", SUMS[budget.unit])
    table = ROLLUPS.get(budget.scope.kind)
    return raw, total(table, "bucket", ROLLUP_SUMS[budget.unit]) if table else raw


async def aggregators_are_killed(run: Run) -> Verdict:
    """Two workers and two aggregators; at random one of either is killed, stopped or started."""
    name = f"run-{uuid.uuid4().hex[:8]}"
    settings: dict[str, Any] = {"aggregate_group": f"aggregate-{name}", "reconcile_seconds": 3}
    store = KafkaBudgets(run.stack.kafka.address)
    aggregators: list[subprocess.Popen[bytes]] = []
    kept = budgets(name)
    for budget in kept:
        await store.put(budget)
    try:
        for _ in range(2):
            aggregators.append(run.start_insights("aggregate", **settings))
        producing = asyncio.create_task(_produce(run))
        for _ in range(4):
            run.start_worker()
            await asyncio.sleep(run.rng.uniform(1.0, 2.5))
            run.kill(run.rng.choice(run.workers))
            victim = aggregators.pop(run.rng.randrange(len(aggregators)))
            victim.send_signal(run.rng.choice((signal.SIGKILL, signal.SIGTERM)))
            run.kills += await asyncio.to_thread(victim.wait) == -signal.SIGKILL
            aggregators.append(run.start_insights("aggregate", **settings))
        await producing
        verdict = await run.settle()
        await until_windows_equal(run, store, kept)
        return verdict
    finally:
        for process in aggregators:
            process.kill()
            process.wait()
        for budget in kept:
            await store.delete(budget.id)
        await store.close()


async def _produce(run: Run) -> None:
    for number in range(0, 600, 20):
        await run.produce([(f"m-{n}", event(run.rng, f"m-{n}")) for n in range(number, number + 20)])
        await asyncio.sleep(0.25)


async def until_windows_equal(run: Run, store: KafkaBudgets, kept: list[Budget]) -> None:
    """Raises StuckError when windows do not come to equal the rows and the rollups."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while True:
        statuses, now = await store.statuses(), datetime.now(UTC)
        found = {budget.id: statuses[budget.id].spent if budget.id in statuses else None for budget in kept}
        expected = {budget.id: stored(run, budget, now) for budget in kept}
        off = {name: (spent, expected[name]) for name, spent in found.items() if {spent} != set(expected[name])}
        if not off and all(spent is not None and spent > 0 for spent in found.values()):
            return
        if loop.time() > deadline:
            raise StuckError(f"windows differ from the rows: {off}\n{run.log_tail()}")
        await asyncio.sleep(0.5)
