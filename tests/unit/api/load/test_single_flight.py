"""One call at a time, whoever asks."""

import asyncio
import threading
import time

import pytest

from api.load.single_flight import SingleFlight

SECONDS = 30.0


async def test_whoever_asks_while_it_runs_gets_the_same_answer() -> None:
    end, calls = threading.Event(), list[int]()

    def count() -> int:
        calls.append(1)
        end.wait(SECONDS)
        return len(calls)

    flight = SingleFlight("test", count)
    asking = [asyncio.create_task(flight.result(SECONDS)) for _ in range(50)]
    await asyncio.sleep(0.01)
    end.set()
    assert await asyncio.gather(*asking) == [1] * 50
    assert await flight.result(SECONDS) == 2


async def test_a_flight_that_hangs_costs_those_after_it_no_time() -> None:
    end = threading.Event()
    flight = SingleFlight("test", lambda: end.wait(SECONDS))
    with pytest.raises(TimeoutError):
        await flight.result(0.05)
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            await flight.result(0.05)
    assert time.monotonic() - started < 0.9
    end.set()
    while True:
        try:
            assert await flight.result(SECONDS)
            return
        except TimeoutError:
            await asyncio.sleep(0.005)


async def test_an_error_is_told_to_all_and_forgotten() -> None:
    errors = [OSError("away")]

    def fail_once() -> int:
        if errors:
            raise errors.pop()
        return 1

    flight = SingleFlight("test", fail_once)
    with pytest.raises(OSError, match="away"):
        await flight.result(None)
    assert await flight.result(None) == 1
