import re
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.clickhouse.sql import MAX_PARAMETERS_BYTES, Binder, ValuesTooLargeError, all_of, instant, time_range
from aggregator.rollups.measures import REQUESTS, Dimension
from aggregator.rollups.planner import Condition, Question, compile_states
from aggregator.times import END_OF_TIME, EPOCH, EVERYTHING, LAST_END, Span, from_micros, micros

NOON = datetime(2026, 3, 29, 12, 0, 0, 123456, tzinfo=UTC)


def test_conditions_that_are_empty_are_left_out() -> None:
    assert all_of("a = 1", "", "b = 2") == "a = 1 AND b = 2"
    assert all_of() == all_of("", "") == "1"


def test_a_time_range_has_the_bounds_of_its_span() -> None:
    start, end = f"t >= {instant(NOON)}", f"t < {instant(END_OF_TIME)}"
    assert time_range("t", Span(NOON, END_OF_TIME)) == f"{start} AND {end}"
    assert time_range("t", Span(NOON)) == start
    assert time_range("t", Span(end=END_OF_TIME)) == end
    assert time_range("t", EVERYTHING) == ""


@pytest.mark.parametrize(
    ("moment", "nearest"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), EPOCH),
        (EPOCH - timedelta(microseconds=1), EPOCH),
        (LAST_END + timedelta(microseconds=1), LAST_END),
        (datetime.max.replace(tzinfo=UTC), LAST_END),
        (NOON.replace(tzinfo=None), NOON),
    ],
)
def test_a_moment_is_moved_to_the_nearest_that_a_stored_time_may_have(moment: datetime, nearest: datetime) -> None:
    assert instant(moment) == instant(nearest)
    assert from_micros(micros(moment)) == nearest
    assert str(micros(nearest)) in instant(moment)


def test_a_statement_never_gives_a_value_a_name_of_its_condition() -> None:
    inner = Binder()
    condition = Condition(f"a = {inner.text('x')} AND b IN {inner.texts(['y'])}", inner.parameters, frozenset())
    question = Question((REQUESTS,), Span(NOON), {Dimension.MODEL: "gpt"}, Dimension.USER, condition=condition)
    sql, parameters = compile_states(question)
    assert set(re.findall(r"\{(\w+):", sql)) == set(parameters)
    assert inner.parameters == {name: parameters[name] for name in inner.parameters}
    assert list(parameters.values()).count("gpt") == len(parameters) - len(inner.parameters) > 0


def test_values_that_no_url_holds_are_refused() -> None:
    binder = Binder()
    with pytest.raises(ValuesTooLargeError):
        binder.texts(["é" * 10_000] * (MAX_PARAMETERS_BYTES // 60_000 + 1))
