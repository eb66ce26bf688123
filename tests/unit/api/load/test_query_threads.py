"""Threads and futures: whatever happens to a call, its queries end and their threads are free again."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from api.load import query_threads
from api.load.call import CallOverError, ReadCall
from api.load.query_threads import QueryThreads

SECONDS = 30.0


class Engine:
    """Stands for ClickHouse: its queries run until they are let go or killed."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.killed: list[Sequence[str]] = []
        self.threads = QueryThreads(4, self.kill)
        self._ends: dict[str, threading.Event] = {}
        self._calls: dict[str, str] = {}

    def query(self, call: ReadCall, key: str, name: str) -> "Future[str]":
        self._ends[name] = threading.Event()
        self._calls[name] = call.id
        return self.threads.submit(call, key, lambda: self._run(name))

    def _run(self, name: str) -> str:
        self.started.append(name)
        assert self._ends[name].wait(SECONDS)
        return name

    def let_go(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()

    def kill(self, ids: Sequence[str]) -> None:
        self.killed.append(ids)
        self.let_go(*(name for name, call in self._calls.items() if call in ids))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(query_threads, "KILL_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(query_threads, "CANNOT_KILL_SECONDS", 0.01)
    engine = Engine()
    yield engine
    engine.let_go(*engine._ends)


def until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


def gauge(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


def test_queries_of_a_call_that_is_over_are_dropped_and_killed_and_others_go_on(engine: Engine) -> None:
    heavy, light = ReadCall(SECONDS), ReadCall(SECONDS)
    futures = [engine.query(heavy, "a", f"heavy {n}") for n in range(10)]
    until(lambda: len(engine.started) == 2)
    other = engine.query(light, "b", "light")
    until(lambda: len(engine.started) == 3)
    assert engine.threads.end(heavy, "a") == 10
    for future in futures:
        assert isinstance(future.exception(0), CallOverError), "whoever waits knows at once"
    engine.let_go("light")
    assert other.result(SECONDS) == "light"
    assert set(engine.started) == {"heavy 0", "heavy 1", "light"}
    assert {id for ids in engine.killed for id in ids} == {heavy.id}
    with pytest.raises(CallOverError):
        engine.query(heavy, "a", "late")
    # Both threads and their places are free again.
    more = [engine.query(light, "a", f"more {n}") for n in range(2)]
    until(lambda: len(engine.started) == 5)
    engine.let_go("more 0", "more 1")
    assert [future.result(SECONDS) for future in more] == ["more 0", "more 1"]


def test_a_query_that_kill_does_not_find_yet_is_killed_again(engine: Engine) -> None:
    found, kill = threading.Event(), engine.kill

    def kill_later(ids: Sequence[str]) -> None:
        engine.killed.append(ids)
        if len(engine.killed) == 2:
            raise OSError("the server is away")
        if len(engine.killed) > 3:
            found.set()
            kill(ids)

    threads = QueryThreads(2, kill_later)
    engine.threads = threads
    call = ReadCall(SECONDS)
    engine.query(call, "a", "slow")
    until(lambda: engine.started)
    assert threads.end(call, "a") == 1
    assert found.wait(SECONDS)
    again = engine.query(ReadCall(SECONDS), "a", "next")
    engine.let_go("next")
    assert again.result(SECONDS) == "next"


def test_an_error_reaches_whoever_waits_and_frees_the_thread() -> None:
    threads = QueryThreads(1, lambda ids: None)

    def fails() -> None:
        raise ValueError("no such column")

    for _ in range(3):
        with pytest.raises(ValueError, match="no such column"):
            threads.submit(ReadCall(SECONDS), "a", fails).result(SECONDS)
    assert threads.submit(ReadCall(SECONDS), "a", lambda: 7).result(SECONDS) == 7


def test_a_call_without_time_left_asks_nothing() -> None:
    threads = QueryThreads(1, lambda ids: None)
    with pytest.raises(CallOverError):
        threads.submit(ReadCall(0), "a", lambda: 7)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.booleans()), min_size=1, max_size=12))
def test_cancellation_never_leaks_a_thread(calls: list[tuple[str, int, bool]]) -> None:
    """Calls of many keys, some of which are ended at any moment; then everything there is can run again."""
    waiting, running = gauge("insights_api_queries_waiting"), gauge("insights_api_queries_running")
    stop = threading.Event()
    threads = QueryThreads(4, lambda ids: stop.set())
    futures: list[Future[int]] = []
    for key, count, is_ended in calls:
        call = ReadCall(SECONDS)
        futures += [threads.submit(call, key, lambda: stop.wait(0.002) or 1) for _ in range(count)]
        if is_ended:
            threads.end(call, key)
    wait(futures, SECONDS)
    assert all(future.done() for future in futures)
    until(lambda: gauge("insights_api_queries_running") == running)
    assert gauge("insights_api_queries_waiting") == waiting
    # Two keys fill three of the four places at once only if none is lost.
    together = threading.Barrier(3)
    last = [threads.submit(ReadCall(SECONDS), key, lambda: together.wait(SECONDS)) for key in "xxy"]
    assert sorted(future.result(SECONDS) for future in last) == [0, 1, 2]
