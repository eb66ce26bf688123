"""How many requests are under way, of one key and of all."""

import asyncio
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from api.errors import ApiError
from api.load.request_threads import RequestThreads

SECONDS = 30.0


async def start(threads: RequestThreads, key: str, end: threading.Event) -> "asyncio.Task[bool]":
    task = asyncio.create_task(threads.run(key, lambda: end.wait(SECONDS)))
    await asyncio.sleep(0)
    return task


async def test_a_request_too_many_is_refused_at_once_and_says_when_to_come_back() -> None:
    threads, end = RequestThreads(3, 2), threading.Event()
    under_way = [await start(threads, key, end) for key in "aab"]
    with capture_logs() as lines:
        with pytest.raises(ApiError, match="This key has 2 requests under way") as of_key:
            await threads.run("a", lambda: 1)
        with pytest.raises(ApiError, match="Too many requests are under way") as of_all:
            await threads.run("b", lambda: 1)
        with pytest.raises(ApiError):
            await threads.run("a", lambda: 1)
    assert (of_key.value.status, of_all.value.status) == (429, 503)
    assert of_key.value.headers == of_all.value.headers == {"Retry-After": "1"}
    # Not a line each: whoever asks too much does so often.
    assert [(line["key"], line["under_way"], line["limit"]) for line in lines] == [
        ("a", 2, "INSIGHTS_MAX_REQUESTS_OF_KEY"),
        ("all", 3, "INSIGHTS_MAX_REQUESTS"),
    ]
    end.set()
    assert await asyncio.gather(*under_way) == [True] * 3
    assert await threads.run("a", lambda: 1) == 1


async def test_a_request_is_under_way_until_its_thread_is_done_though_nobody_waits() -> None:
    threads, end = RequestThreads(1, 1), threading.Event()
    task = await start(threads, "a", end)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ApiError):
        await threads.run("a", lambda: 1)
    end.set()
    while True:
        try:
            assert await threads.run("a", lambda: 1) == 1
            break
        except ApiError:
            await asyncio.sleep(0.005)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ends", "fails", "is cancelled"])), max_size=40))
def test_no_end_of_a_request_leaks_its_place(requests: list[tuple[str, str]]) -> None:
    async def run() -> None:
        threads, going, most = RequestThreads(6, 3), Counter[str](), Counter[str]()
        lock = threading.Lock()

        def answer(key: str, how: str) -> None:
            with lock:
                going[key] += 1
                most[key], most["all"] = max(most[key], going[key]), max(most["all"], going.total())
            threading.Event().wait(0.001)
            with lock:
                going[key] -= 1
            if how == "fails":
                raise ValueError(how)

        tasks = []
        for key, how in requests:
            tasks.append(task := asyncio.create_task(threads.run(key, lambda key=key, how=how: answer(key, how))))  # type: ignore[misc]
            await asyncio.sleep(0)
            if how == "is cancelled":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert max(most.values(), default=0) <= 6
        assert max((most[key] for key in "abc"), default=0) <= 3
        # All six places, three of each key, are there.
        async with asyncio.timeout(SECONDS):
            while going.total():  # noqa: ASYNC110 - threads set no event of the loop
                await asyncio.sleep(0.002)
            together = threading.Barrier(6)
            while True:
                try:
                    await asyncio.gather(*(threads.run(key, lambda: together.wait(0.5)) for key in "aaabbb"))
                    return
                except (ApiError, threading.BrokenBarrierError):
                    together.reset()

    asyncio.run(run())
