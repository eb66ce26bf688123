"""The demo's checks find what disagrees, and nothing where all agrees; its report shows what it was given."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
import pytest
from rich.console import Console

from cli.demo.checks import answer_differences
from cli.demo.generator import Expected, Tally, draw, expected
from cli.demo.report import Check, Speed, columns_chart, report
from router_insights.answers.request_logs import RequestLogStat, RequestLogStats

END = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


@cache
def wanted() -> Expected:
    return expected(draw(seed=5, count=3_000, start=END - timedelta(hours=24), end=END))


def stats_of(tallies: Mapping[Any, Tally], name_of: Callable[[Any], str] = str) -> RequestLogStats:
    """What a flawless API would answer, at a dollar a thousand tokens."""
    groups = [
        RequestLogStat(
            group=name_of(key),
            count=tally.requests,
            error_count=tally.errors,
            unpriced_count=tally.unpriced,
            missing_usage_count=tally.missing_usage,
            failed_without_usage_count=tally.failed_without_usage,
            input_tokens=tally.input_tokens,
            output_tokens=tally.output_tokens,
            cached_input_tokens=tally.cached_input_tokens,
            cost=Decimal(tally.input_tokens) / 1000,
            avg_duration_ms=1200.0,
            p50_duration_ms=900.0,
            p95_duration_ms=2500.0,
            p99_duration_ms=9000.0,
            value=tally.requests,
        )
        for key, tally in tallies.items()
    ]
    total = wanted().total
    return RequestLogStats(
        stats=groups,
        truncated=False,
        avg_duration_ms=1200.0,
        total_count=total.requests,
        total_input_tokens=total.input_tokens,
        total_output_tokens=total.output_tokens,
        total_cost=sum((group.cost for group in groups), Decimal(0)),
        error_count=total.errors,
        unpriced_count=total.unpriced,
        missing_usage_count=total.missing_usage,
        failed_without_usage_count=total.failed_without_usage,
    )


def answers() -> dict[str, RequestLogStats]:
    return {
        "model": stats_of(wanted().by_model),
        "user": stats_of(wanted().by_user),
        "api_key": stats_of(wanted().by_api_key),
        "status": stats_of(wanted().by_status),
        "hour": stats_of(wanted().by_hour, lambda hour: hour.isoformat().replace("+00:00", "Z")),
    }


def test_answers_that_agree_leave_nothing_to_say() -> None:
    assert answer_differences(wanted(), answers()) == []


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("count", "requests"),
        ("error_count", "errors"),
        ("unpriced_count", "unpriced"),
        ("missing_usage_count", "missing_usage"),
        ("failed_without_usage_count", "failed_without_usage"),
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("cached_input_tokens", "cached_input_tokens"),
    ],
)
@pytest.mark.parametrize("kind", ["model", "user", "api_key", "status", "hour"])
def test_one_more_in_any_number_of_any_group_is_found(kind: str, field: str, said: str) -> None:
    given = answers()
    group = given[kind].stats[0]
    before = getattr(group, field)
    one_more: dict[str, Any] = {field: before + 1}
    given[kind].stats[0] = msgspec.structs.replace(group, **one_more)
    (sentence,) = answer_differences(wanted(), given)
    assert sentence.startswith(f"by {kind}, ")
    assert sentence.endswith(f": {said} {before + 1:,} instead of {before:,}")


@pytest.mark.parametrize("field", ["total_count", "total_input_tokens", "total_output_tokens", "error_count"])
def test_a_total_that_differs_is_found(field: str) -> None:
    given = answers()
    none: dict[str, Any] = {field: 0}
    given["user"] = msgspec.structs.replace(given["user"], **none)
    (sentence,) = answer_differences(wanted(), given)
    assert sentence.startswith("by user, in total: ")


def test_a_group_that_is_missing_and_one_too_many_are_found() -> None:
    given = answers()
    lost = given["model"].stats.pop()
    given["model"].stats.append(msgspec.structs.replace(lost, group="another"))
    sentences = answer_differences(wanted(), given)
    assert sorted(sentence.split(":")[0] for sentence in sentences) == sorted(
        ["by model, another", f"by model, {lost.group}"]
    )


def test_a_cost_that_differs_in_the_last_digit_is_found() -> None:
    given = answers()
    hours = given["hour"].stats
    hours[3] = msgspec.structs.replace(hours[3], cost=hours[3].cost + Decimal("0.000000000001"))
    (sentence,) = answer_differences(wanted(), given)
    assert sentence.startswith("by hour: cost ")


def test_many_differences_are_summed_up() -> None:
    given = answers()
    given["user"].stats[:] = [msgspec.structs.replace(group, count=group.count + 1) for group in given["user"].stats]
    sentences = answer_differences(wanted(), given)
    assert len(sentences) == 6
    assert sentences[-1] == f"by user: {len(given['user'].stats) - 5} more groups differ"


def printed(columns: int, checks: list[Check], given: dict[str, RequestLogStats] | None = None) -> str:
    console = Console(width=columns, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(report(given or answers(), checks, Speed(1.0, 2.0), columns))
    return capture.get()


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_the_report_fits_the_terminal_and_shows_every_model(columns: int) -> None:
    page = printed(columns, [Check("it holds", [])])
    assert max(len(line) for line in page.splitlines()) <= columns
    for model in wanted().by_model:
        assert page.count(model) >= 2
    assert "everything agrees" in page
    assert "1,500" in page  # events/s
    assert "unknown" in page  # the cost of the model that nobody prices


def test_the_report_says_what_disagrees() -> None:
    page = printed(100, [Check("it holds", []), Check("it does not", ["3 instead of 4"])])
    assert "something disagrees" in page
    assert "✗ it does not" in page
    assert "3 instead of 4" in page


def test_the_report_does_without_failures_latencies_or_hours() -> None:
    given = answers()
    unknown: dict[str, Any] = dict.fromkeys(("p50_duration_ms", "p95_duration_ms", "p99_duration_ms"))
    given["model"].stats[:] = [
        msgspec.structs.replace(group, error_count=0, **unknown) for group in given["model"].stats
    ]
    given["hour"].stats.clear()
    assert "Latency by model" in printed(100, [], given)


def test_a_chart_of_columns_rises_with_the_values() -> None:
    assert columns_chart([0, 4, 8], rows=2) == ["      ██", "   ██ ██"]
    assert columns_chart([1, 16], rows=2) == ["   ██", "▁▁ ██"]
    assert columns_chart([0, 0], rows=1) == ["     "]


def test_speed_counts_until_the_last_answer() -> None:
    speed = Speed(emitted_seconds=1.0, answered_seconds=2.0)
    assert speed.per_second(50_000) == 25_000
    assert replace(speed, answered_seconds=4.0).per_second(50_000) == 12_500
