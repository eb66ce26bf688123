"""Compares the answers of the API with what was emitted; every difference is a sentence."""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from cli.demo.generator import Expected, Tally
from router_insights.answers.request_logs import RequestLogStat, RequestLogStats

MOST_SENTENCES = 5


def _tally(group: RequestLogStat) -> Tally:
    return Tally(
        requests=group.count,
        errors=group.error_count,
        unpriced=group.unpriced_count,
        missing_usage=group.missing_usage_count,
        failed_without_usage=group.failed_without_usage_count,
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
        cached_input_tokens=group.cached_input_tokens,
    )


def _tally_difference(got: Tally, wanted: Tally) -> str:
    parts = (
        f"{name} {have:,} instead of {want:,}"
        for name, have, want in zip(Tally._fields, got, wanted, strict=True)
        if have != want
    )
    return ", ".join(parts)


def _group_differences(
    kind: str, stats: RequestLogStats, wanted: Mapping[Any, Tally], key_of: Callable[[str], Any]
) -> list[str]:
    nothing = Tally()
    got = {key_of(group.group): _tally(group) for group in stats.stats}
    wrong = [key for key in sorted(got.keys() | wanted.keys()) if got.get(key, nothing) != wanted.get(key, nothing)]
    sentences = [
        f"by {kind}, {key}: {_tally_difference(got.get(key, nothing), wanted.get(key, nothing))}" for key in wrong
    ]
    if len(sentences) > MOST_SENTENCES:
        sentences[MOST_SENTENCES:] = [f"by {kind}: {len(wrong) - MOST_SENTENCES:,} more groups differ"]
    return sentences


def _total_differences(kind: str, stats: RequestLogStats, wanted: Tally) -> list[str]:
    pairs = (
        ("requests", stats.total_count, wanted.requests),
        ("errors", stats.error_count, wanted.errors),
        ("unpriced", stats.unpriced_count, wanted.unpriced),
        ("missing usage", stats.missing_usage_count, wanted.missing_usage),
        ("failed without usage", stats.failed_without_usage_count, wanted.failed_without_usage),
        ("input tokens", stats.total_input_tokens, wanted.input_tokens),
        ("output tokens", stats.total_output_tokens, wanted.output_tokens),
    )
    return [f"by {kind}, in total: {name} {got:,} instead of {want:,}" for name, got, want in pairs if got != want]


def _cost_differences(answers: Mapping[str, RequestLogStats]) -> list[str]:
    """Every grouping must have the same total, to the last digit."""
    totals = {kind: stats.total_cost for kind, stats in answers.items()}
    sums = {kind: sum((group.cost for group in stats.stats), Decimal(0)) for kind, stats in answers.items()}
    reference = totals["model"]
    return [
        f"by {kind}: cost {total} in total and {sums[kind]} over its groups, while by model it is {reference}"
        for kind, total in totals.items()
        if not total == sums[kind] == reference
    ]


def answer_differences(expected: Expected, answers: Mapping[str, RequestLogStats]) -> list[str]:
    """Compare the API's stats by `model`, `user`, `api_key`, `status` and `hour` with the tally of what was
    emitted, group by group, and with one another."""
    wanted: dict[str, tuple[Mapping[Any, Tally], Callable[[str], Any]]] = {
        "model": (expected.by_model, str),
        "user": (expected.by_user, str),
        "api_key": (expected.by_api_key, str),
        "status": (expected.by_status, str),
        "hour": (expected.by_hour, datetime.fromisoformat),
    }
    sentences = []
    for kind, (groups, key_of) in wanted.items():
        sentences += _total_differences(kind, answers[kind], expected.total)
        sentences += _group_differences(kind, answers[kind], groups, key_of)
    return sentences + _cost_differences(answers)
