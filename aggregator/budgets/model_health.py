"""Anomaly detection: alerts on a model's health, from the last five minutes against the three hours before.

Fewer than MIN_REQUESTS requests raise no alert, and each kind is raised at most once per model and hour.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from aggregator.budgets.alert import Alert, AlertKind, alert_id
from aggregator.budgets.increment import Usage
from aggregator.budgets.period import BudgetPeriod, minutes, span_of
from aggregator.budgets.subject import Subject, SubjectKind

WINDOW_MINUTES = 5
BEFORE_MINUTES = 180
MIN_REQUESTS = 50
# Error rate: at least this, and this many times what it was.
ERROR_RATE, ERROR_FACTOR = 0.05, 3
# Mean duration: this many times what it was.
LATENCY_FACTOR = 2
# Silence: where at least this many requests were expected.
EXPECTED_REQUESTS = 20
# Requests with usage and no known price; requests that succeeded and reported no usage.
UNPRICED_SHARE = MISSING_USAGE_SHARE = 0.1


class ModelSums(NamedTuple):
    requests: int = 0
    errors: int = 0
    unpriced: int = 0
    missing_usage: int = 0
    failed_without_usage: int = 0
    duration_ms_sum: int = 0
    duration_ms_count: int = 0

    def plus(self, other: "ModelSums | Usage") -> "ModelSums":
        return ModelSums(
            self.requests + other.requests,
            self.errors + other.errors,
            self.unpriced + other.unpriced,
            self.missing_usage + other.missing_usage,
            self.failed_without_usage + other.failed_without_usage,
            self.duration_ms_sum + other.duration_ms_sum,
            self.duration_ms_count + other.duration_ms_count,
        )

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def mean_duration_ms(self) -> float:
        return self.duration_ms_sum / self.duration_ms_count if self.duration_ms_count else 0.0

    @property
    def with_usage(self) -> int:
        return self.requests - self.missing_usage - self.failed_without_usage

    @property
    def successes(self) -> int:
        return self.requests - self.errors


@dataclass
class ModelHistory:
    """Sums by model and minute; those from rollups are per quarter of an hour, at its first minute.

    Usage of minutes before `closed_before` is not added: the rollups have it, or will.
    """

    models: dict[str, dict[int, ModelSums]] = field(default_factory=dict)
    closed_before: int = 0

    def add(self, usages: Iterable[Usage]) -> None:
        for usage in usages:
            if usage.kind == SubjectKind.MODEL.value and usage.minute >= self.closed_before:
                history = self.models.setdefault(usage.value, {})
                history[usage.minute] = history.get(usage.minute, ModelSums()).plus(usage)

    def drop_old(self, now: datetime) -> None:
        """Drop minutes that are too old to be compared, with a quarter of an hour to spare."""
        oldest = minutes(now) - WINDOW_MINUTES - BEFORE_MINUTES - 15
        for model, history in list(self.models.items()):
            for minute in [minute for minute in history if minute < oldest]:
                del history[minute]
            if not history:
                del self.models[model]

    def compare(self, model: str, now: datetime) -> tuple[ModelSums, ModelSums]:
        """Sums of the last five minutes, and of the three hours before these."""
        since = minutes(now) + 1 - WINDOW_MINUTES
        window, before = ModelSums(), ModelSums()
        for minute, sums in self.models[model].items():
            if minute >= since:
                window = window.plus(sums)
            elif minute >= since - BEFORE_MINUTES:
                before = before.plus(sums)
        return window, before


def _anomalies(window: ModelSums, before: ModelSums) -> Iterator[tuple[AlertKind, float, float, str]]:
    """Kind, measured value, what it is compared with, and a sentence."""
    if window.requests >= MIN_REQUESTS:
        rate = window.error_rate
        if before.requests >= MIN_REQUESTS and rate >= max(ERROR_RATE, ERROR_FACTOR * before.error_rate):
            yield AlertKind.ERROR_RATE, rate, before.error_rate, f"{rate:.1%} of requests fail"
    if window.with_usage >= MIN_REQUESTS and window.unpriced >= UNPRICED_SHARE * window.with_usage:
        share = window.unpriced / window.with_usage
        yield AlertKind.UNPRICED, share, UNPRICED_SHARE, f"{share:.1%} of requests with usage have no known price"
    if window.successes >= MIN_REQUESTS and window.missing_usage >= MISSING_USAGE_SHARE * window.successes:
        share = window.missing_usage / window.successes
        yield AlertKind.MISSING_USAGE, share, MISSING_USAGE_SHARE, f"{share:.1%} of successful requests report no usage"
    if min(window.duration_ms_count, before.duration_ms_count) >= MIN_REQUESTS:
        mean, mean_before = window.mean_duration_ms, before.mean_duration_ms
        if mean >= LATENCY_FACTOR * mean_before > 0:
            yield AlertKind.LATENCY, mean, mean_before, f"requests take {mean:.0f} ms instead of {mean_before:.0f}"
    expected = before.requests * WINDOW_MINUTES / BEFORE_MINUTES
    if not window.requests and expected >= EXPECTED_REQUESTS:
        yield AlertKind.SILENCE, 0.0, expected, f"no request, where {expected:.0f} were to be expected"


def new_alerts(history: ModelHistory, known: dict[str, datetime], now: datetime) -> Iterator[Alert]:
    """An alert for each anomaly of now that is not in `known`, where its id and the end of its hour are added."""
    start, end = span_of(BudgetPeriod.HOUR, "UTC", now)
    for model in history.models:
        window, before = history.compare(model, now)
        for kind, value, limit, sentence in _anomalies(window, before):
            name = alert_id(kind, model, start)
            if name in known:
                continue
            known[name] = end
            yield Alert(
                id=name,
                kind=kind,
                created_at=now,
                scope=Subject(kind=SubjectKind.MODEL, value=model),
                value=Decimal(f"{value:.6f}"),
                limit=Decimal(f"{limit:.6f}"),
                period_start=start,
                period_end=end,
                message=f"model {model}, last {WINDOW_MINUTES} minutes: {sentence}",
            )
