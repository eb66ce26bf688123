"""The scenarios: what goes wrong while workers read a topic. Each gets a run of its own, disturbs it, and leaves it
to the verdict whether every record is stored once."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from multiprocessing.process import BaseProcess

from tests.faults.budgets import aggregators_are_killed
from tests.faults.stack import EXIT_SECONDS, SESSION_SECONDS, Run, StuckError
from tests.faults.verdict import Verdict
from tests.faults.worker import POINTS
from tests.support.clickhouse_http import Fault

ROLLUP_TABLES = ("rollup_model", "rollup_user")
READ_ONLY, NO_SPACE, TOO_MANY_PARTS = 242, 243, 252


async def kill_at_every_point(run: Run) -> Verdict:
    """One worker after another kills itself at a random point of the protocol, or is killed at a random moment."""
    producing = asyncio.create_task(run.produce_slowly(400, seconds=4))
    for point in run.rng.sample([*POINTS, "anywhere"], 4):
        if point == "anywhere":
            worker = run.start_worker()
            await asyncio.sleep(run.rng.uniform(0.3, 2.0))
        else:
            worker = run.start_worker(point, countdown=run.rng.randint(1, 4))
            await _join(worker, 6.0)
        run.kill(worker)
    await producing
    return await run.settle()


async def offsets_are_set_back(run: Run) -> Verdict:
    """Workers are killed as above, and between their lives somebody sets the group's offsets back: into the middle of
    batches, behind intents that nobody has carried out, and while the next worker is still at what was set back."""
    producing = asyncio.create_task(run.produce_slowly(400, seconds=4))
    for number in range(4):
        for _ in range(run.rng.randint(1, 2)):
            worker = run.start_worker(run.rng.choice(POINTS), countdown=run.rng.randint(1, 6))
            await _join(worker, run.rng.uniform(1.0, 5.0))
            run.kill(worker)
        await run.set_offsets_back(to_beginning=number == 3)
    await producing
    # Behind all that is read again, so that nothing is settled before it is read.
    await run.produce(run.events(60))
    return await run.settle(workers=run.rng.randint(1, 2))


async def _join(worker: BaseProcess, seconds: float) -> None:
    await asyncio.to_thread(worker.join, seconds)


async def workers_come_and_go(run: Run) -> Verdict:
    """Two or three workers; at random one joins, leaves, is killed, or is stopped and wakes up as a zombie."""
    producing = asyncio.create_task(run.produce_slowly(600, seconds=6))
    run.start_worker()
    run.start_worker()
    for _ in range(4):
        await asyncio.sleep(run.rng.uniform(0.2, 1.0))
        run.reap()
        if len(run.workers) < 2:
            run.start_worker()
        await run.rng.choice((_join_group, _leave_group, _kill_one, _freeze_one))(run)
    await producing
    return await run.settle(workers=run.rng.randint(1, 3))


async def _join_group(run: Run) -> None:
    if len(run.workers) < 3:
        run.start_worker()


async def _leave_group(run: Run) -> None:
    await run.stop_workers([run.rng.choice(run.workers)])


async def _kill_one(run: Run) -> None:
    run.kill(run.rng.choice(run.workers))


async def _freeze_one(run: Run) -> None:
    """Past its session, so that its partitions go to others while it holds a batch; then it goes on."""
    worker = run.rng.choice(run.workers)
    if worker.pid is not None:
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(SESSION_SECONDS * run.rng.uniform(1.2, 3.0))
        os.kill(worker.pid, signal.SIGCONT)


async def zombie_of_an_empty_group(run: Run) -> Verdict:
    """A worker freezes; its successor takes over, writes on and is gone before the first wakes up: nobody is there
    to fence it but the protocol."""
    await run.produce(run.events(200))
    frozen = run.start_worker()
    await run.until(lambda: run.stored() > 0)
    assert frozen.pid is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    run.workers.remove(frozen)
    await run.produce(run.events(200))
    run.start_worker()
    await run.until(lambda: run.stored() >= 400)
    await run.stop_workers()
    run.workers.append(frozen)
    os.kill(frozen.pid, signal.SIGCONT)
    await run.produce(run.events(100))
    await run.until(lambda: run.stored() >= 500)
    run.kill(frozen)
    await run.produce(run.events(50))
    return await run.settle()


async def zombie_with_full_buffers(run: Run) -> Verdict:
    """A worker freezes past its session, again and again, while a backlog fills every buffer behind the batches in
    flight. When it goes on, Kafka refuses its intents; it must join the group again, and end on SIGTERM."""
    run.flush_rows = 20
    await run.produce(run.events(1200))
    worker = run.start_worker()
    await run.until(lambda: run.stored() > 0, workers=1)
    for _ in range(4):
        await asyncio.sleep(run.rng.uniform(0.05, 0.4))
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        await asyncio.sleep(SESSION_SECONDS * 1.3)
        os.kill(worker.pid, signal.SIGCONT)
    await asyncio.sleep(run.rng.uniform(0.1, 0.5))
    await run.stop_workers([worker])
    return await run.settle()


async def clickhouse_refuses(run: Run) -> Verdict:
    """Read-only, no space, too many parts, dropped connections, lost answers, and slow inserts, in random order."""
    faults = [Fault(action="fail", code=code, times=2) for code in (READ_ONLY, NO_SPACE, TOO_MANY_PARTS)]
    faults += [Fault(action="drop_before", times=2), Fault(action="drop_after", times=3)]
    faults += [Fault(action="drop_after", table=table) for table in ("request_payloads", "request_logs")]
    faults.append(Fault(action="delay", seconds=1.5, times=2))
    run.rng.shuffle(faults)
    run.stack.clickhouse.inject(*faults)
    producing = asyncio.create_task(run.produce_slowly(300, seconds=3))
    run.start_worker()
    if run.rng.random() < 0.5:
        await asyncio.sleep(run.rng.uniform(0.5, 3.0))
        run.kill(run.workers[0])
    await producing
    try:
        return _without_crashes(run, await run.settle(workers=run.rng.randint(1, 2)))
    finally:
        run.stack.clickhouse.forget_faults()


def _without_crashes(run: Run, verdict: Verdict) -> Verdict:
    """Faults that pass by themselves must not end a worker."""
    if run.crashes:
        raise StuckError(f"{run.crashes} workers ended by themselves\n{run.log_tail()}")
    return verdict


async def clickhouse_is_killed(run: Run) -> Verdict:
    """ClickHouse is killed while it inserts, stays away for a while, and comes back on its data."""
    producing = asyncio.create_task(run.produce_slowly(400, seconds=6))
    run.start_worker()
    for _ in range(2):
        await asyncio.sleep(run.rng.uniform(0.5, 2.0))
        run.stack.clickhouse.kill9()
        run.kills += 1
        await asyncio.sleep(run.rng.uniform(0.0, 3.0))
        run.stack.clickhouse.start()
    await producing
    return _without_crashes(run, await run.settle())


async def clickhouse_is_away_for_a_minute(run: Run) -> Verdict:
    """The same once, for a minute, with two workers."""
    producing = asyncio.create_task(run.produce_slowly(400, seconds=10))
    run.start_worker()
    run.start_worker()
    await run.until(lambda: run.stored() > 0)
    run.stack.clickhouse.kill9()
    run.kills += 1
    await asyncio.sleep(60)
    run.stack.clickhouse.start()
    await producing
    return _without_crashes(run, await run.settle(workers=2))


async def view_fails_half_way(run: Run) -> Verdict:
    """A rollup refuses its rows after the raw rows are stored. Workers fail, or are killed while they try, until the
    rollup takes rows again."""
    table = run.rng.choice(ROLLUP_TABLES)
    producing = asyncio.create_task(run.produce_slowly(200, seconds=2))
    run.start_worker()
    await run.until(lambda: run.stored() > 0, workers=1)
    run.warehouse.command(f"ALTER TABLE {table} ADD CONSTRAINT never CHECK requests > 1000000")
    await producing
    await run.produce(run.events(100))
    for _ in range(run.rng.randint(1, 3)):
        worker = run.workers[0] if run.workers else run.start_worker()
        await _join(worker, run.rng.uniform(0.5, 3.0))
        run.kill(worker)
    run.warehouse.command(f"ALTER TABLE {table} DROP CONSTRAINT never")
    return await run.settle()


async def broker_is_killed(run: Run) -> Verdict:
    """The broker is killed under workers and a producer, and comes back on its data."""
    run.start_worker()
    run.start_worker()
    for _ in range(2):
        producing = asyncio.create_task(run.produce_slowly(200, seconds=2))
        await asyncio.sleep(run.rng.uniform(0.2, 2.0))
        run.kill_broker()
        await asyncio.sleep(run.rng.uniform(0.0, 2.0))
        await run.revive_broker()
        await producing
        if run.rng.random() < 0.5:
            run.reap()
            await _kill_one(run) if run.workers else None
    return await run.settle(workers=run.rng.randint(1, 2))


async def topic_is_recreated(run: Run) -> Verdict:
    """The topic is deleted and recreated under a worker, which may be running, frozen or gone, and the new topic gets
    fewer or more records than were read of the old one."""
    produced = run.rng.randint(60, 300)
    await run.produce(run.events(produced))
    worker = run.start_worker()
    await run.until(lambda: run.stored() >= produced, workers=1)
    state = run.rng.choice(("awake", "frozen", "gone"))
    if state == "frozen" and worker.pid is not None:
        os.kill(worker.pid, signal.SIGSTOP)
    elif state == "gone":
        await run.stop_workers()
    await run.recreate_topic()
    await run.produce(run.events(run.rng.randint(30, 600)))
    if state == "frozen" and worker.pid is not None:
        os.kill(worker.pid, signal.SIGCONT)
    return await run.settle()


async def log_is_truncated(run: Run) -> Verdict:
    """Retention deletes records that a lagging worker has not read, perhaps in the middle of a batch whose intent is
    committed: the gap is counted, and nothing else is missing."""
    await run.produce(run.events(150), partition=0)
    point = run.rng.choice(("after_intent", "between_tables", "after_insert", "before_commit"))
    worker = run.start_worker(point, countdown=run.rng.randint(1, 2))
    await _join(worker, 8.0)
    run.kill(worker)
    await run.produce(run.events(100), partition=0)
    before = run.stored()
    await run.delete_before(0, run.rng.choice((before + 5, before + 60, run.rng.randint(1, 240))))
    await run.produce(run.events(50), partition=0)
    verdict = await run.settle()
    reported = sum(line["missing"] for line in run.log_lines("log_truncated"))
    unstored = len(run.may_be_gone) - run.kept
    if reported < unstored:
        raise StuckError(f"{unstored} records are gone, only {reported} were reported\n{run.log_tail()}")
    return verdict


def poisons(run: Run) -> list[tuple[str, bytes]]:
    """One record of every kind that is no valid event, and one larger than the limit."""
    valid = {**json.loads(run.events(1)[0][1]), "request_body": None}
    spoilt = [
        {**valid, "input_tokens": -1},
        {**valid, "input_tokens": "many"},
        {**valid, "input_tokens": 1, "cached_input_tokens": 2},
        {**valid, "timestamp": "yesterday"},
        {**valid, "model_name": None},
        {**valid, "tags": [1]},
        {**valid, "request_id": "x" * 200},
        {"request_id": "only"},
        [valid],
    ]
    raw = [b"", b"\xff\xfe", b"{", b'{"a": "\\u0000"}', b"null", b'"' + b"x" * (9 * 1024 * 1024) + b'"']
    values = [json.dumps(event).encode() for event in spoilt] + raw
    return [(f"p-{run.rng.getrandbits(60):x}", value) for value in values]


async def poison(run: Run) -> Verdict:
    """Records of every kind that is no event: alone, as the last of a batch, in a long row, before a kill."""
    run.flush_rows = 2000
    records = run.events(100)
    for bad in poisons(run):
        records.insert(run.rng.randrange(len(records)), bad)
    await run.produce(records)
    await run.produce([*run.events(39), poisons(run)[0]], partition=1)
    await run.produce([(f"q-{number}", b"not JSON") for number in range(run.rng.choice((100, 10_000)))], partition=2)
    for _ in range(2):
        worker = run.start_worker(run.rng.choice(POINTS), run.rng.randint(1, 5))
        await _join(worker, 5.0)
        run.kill(worker)
    return await run.settle()


async def producers_retry_and_abort(run: Run) -> Verdict:
    """An idempotent producer beside transactions that commit or abort; aborted records must not appear."""
    worker = run.start_worker(run.rng.choice(POINTS), run.rng.randint(1, 6))
    for number in range(8):
        await run.produce(run.events(20))
        await run.produce_in_transaction(run.events(20), commit=number % 2 == 0)
    await _join(worker, 3.0)
    run.kill(worker)
    return await run.settle()


async def rolling_restart(run: Run, seconds: float = 120.0, rate: int = 5000) -> Verdict:
    """Three real `insights ingest` processes under a steady load, restarted one after another by SIGTERM."""
    run.flush_rows = 50_000
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(3):
            processes.append(await _ready_insights_ingest(run))
        deadline = time.monotonic() + seconds
        producing = asyncio.create_task(run.produce_at_rate(rate, seconds))
        while time.monotonic() < deadline:
            await asyncio.sleep(run.rng.uniform(1.0, 6.0))
            await _expect_good_exit(run, processes.pop(0))
            processes.append(await _ready_insights_ingest(run))
        await producing
        expected = await run.log()
        await run.until(lambda: run.stored() >= len(expected), seconds=180)
        await asyncio.gather(*(_expect_good_exit(run, process) for process in processes))
    finally:
        for process in processes:
            process.kill()
    return await run.settle()


async def _ready_insights_ingest(run: Run) -> "subprocess.Popen[bytes]":
    """One more process, when the group has taken it in; so an orchestrator would wait too."""
    before = len(run.log_lines("partitions_assigned"))
    process = run.start_insights("ingest")
    await run.until(lambda: len(run.log_lines("partitions_assigned")) > before)
    return process


async def _expect_good_exit(run: Run, process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM. Raises StuckError unless it exits 0 within EXIT_SECONDS."""
    process.send_signal(signal.SIGTERM)
    try:
        status = await asyncio.to_thread(process.wait, EXIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StuckError(f"SIGTERM did not end a worker within {EXIT_SECONDS:g} s\n{run.log_tail()}") from error
    if status != 0:
        raise StuckError(f"a worker ended with {status} on SIGTERM\n{run.log_tail()}")


async def sigterm_under_load(run: Run) -> Verdict:
    """SIGTERM to a real `insights ingest` that is busy, whose inserts hang, whose broker is dead, or all of it."""
    await run.produce(run.events(1000))
    process = run.start_insights("ingest")
    try:
        await run.until(lambda: run.stored() > 0)
        trouble = run.rng.choice(("none", "slow inserts", "dead broker", "both"))
        if trouble in {"slow inserts", "both"}:
            run.stack.clickhouse.inject(Fault(action="delay", seconds=2 * EXIT_SECONDS, times=6))
            await run.produce(run.events(200))
            await asyncio.sleep(run.rng.uniform(0.2, 1.0))
        if trouble in {"dead broker", "both"}:
            run.kill_broker()
        await asyncio.sleep(run.rng.uniform(0.0, 1.0))
        await _expect_good_exit(run, process)
    finally:
        process.kill()
        run.stack.clickhouse.forget_faults()
        await run.revive_broker()
    return await run.settle()


Scenario = Callable[[Run], Awaitable[Verdict]]

# By the number of the promise they hold: (scenario, runs in a full run, runs in a short one).
SCENARIOS: dict[int, list[tuple[Scenario, int, int]]] = {
    1: [(kill_at_every_point, 40, 3), (offsets_are_set_back, 12, 1)],
    2: [(workers_come_and_go, 12, 2), (zombie_of_an_empty_group, 2, 1), (zombie_with_full_buffers, 6, 1)],
    3: [(clickhouse_refuses, 10, 2), (clickhouse_is_killed, 8, 1), (clickhouse_is_away_for_a_minute, 1, 0)],
    4: [(view_fails_half_way, 8, 2)],
    5: [(broker_is_killed, 5, 1), (topic_is_recreated, 8, 2), (log_is_truncated, 8, 2)],
    6: [(poison, 6, 1)],
    7: [(producers_retry_and_abort, 6, 1)],
    8: [(rolling_restart, 1, 0)],
    9: [(sigterm_under_load, 6, 1)],
    10: [(aggregators_are_killed, 6, 1)],
}
