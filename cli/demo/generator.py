"""Realistic gateway traffic with known sums: the demo's events and the totals that they must give.

`draw` makes columns from a seed, `records` makes Kafka records of them, and `expected` sums the columns without
reading the records. The same seed, count and window give the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from aggregator.times import EPOCH
from cli.demo.profiles import (
    APPLICATIONS,
    KEYS_PER_USER,
    MODELS,
    OUTCOMES,
    TIMEOUT,
    TIMEOUT_MS,
    UNPRICED_MODEL,
    USERS,
    Application,
    Model,
    Outcome,
    api_key_id,
    caller_fields,
    user_id,
)

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Record = tuple[bytes, bytes]

BROKEN_EVERY = 5_000
CHUNK = 10_000
MICROS_PER_HOUR = 3_600_000_000
# Gateways omit these when they are zero.
DETAILS = ("cached_input_tokens", "cache_creation_input_tokens", "thinking_tokens")


class Tally(NamedTuple):
    """The sums of a group of requests. Tokens that were not reported count as zero."""

    requests: int = 0
    errors: int = 0
    unpriced: int = 0
    missing_usage: int = 0
    failed_without_usage: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


@dataclass(frozen=True)
class Expected:
    """The exact answers that the API must give; hours are UTC."""

    total: Tally
    dead_letters: int
    by_model: dict[str, Tally]
    by_user: dict[str, Tally]
    by_api_key: dict[str, Tally]
    by_status: dict[str, Tally]
    by_hour: dict[datetime, Tally]


@dataclass(frozen=True)
class Traffic:
    """One value a request in every column. `moments` are microseconds since 1970, ascending when drawn."""

    request_ids: list[str]
    moments: Numbers
    model: Numbers
    outcome: Numbers
    user: Numbers
    key: Numbers
    usage_known: Flags
    input_tokens: Numbers
    output_tokens: Numbers
    cached_tokens: Numbers
    cache_creation_tokens: Numbers
    thinking_tokens: Numbers
    duration_ms: Numbers
    overhead_ms: Numbers
    first_token_ms: Numbers
    session: Numbers
    broken_before: frozenset[int] = frozenset()


def _column(name: str) -> NDArray[np.float64]:
    return np.array([getattr(model, name) for model in MODELS], dtype=np.float64)


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _lognormal(rng: Generator, median: NDArray[np.float64], sigma: float, highest: int) -> Numbers:
    drawn = median * rng.lognormal(0.0, sigma, len(median))
    return np.clip(drawn, 1, highest).astype(np.int64)


def _moments(rng: Generator, count: int, start: datetime, end: datetime) -> Numbers:
    """Ascending arrival times: quiet at 04:00 UTC, busiest at 15:00, and a little noise."""
    edges = np.linspace(start.timestamp(), end.timestamp(), 24 * 12 + 1)
    hours = edges[:-1] / 3600 % 24
    rate = 1.0 + 0.78 * np.cos((hours - 15.0) / 24 * 2 * np.pi) + 0.12 * rng.random(len(hours))
    cumulative = np.concatenate([[0.0], np.cumsum(rate)])
    seconds = np.interp(np.sort(rng.random(count)), cumulative / cumulative[-1], edges)
    first, last = ((moment - EPOCH) // timedelta(microseconds=1) for moment in (start, end))
    return np.clip((seconds * 1e6).astype(np.int64), first, last - 1)


def _outcomes(rng: Generator, model: Numbers) -> Numbers:
    failed = rng.random(len(model)) < _column("failure_rate")[model]
    kinds = rng.choice(len(OUTCOMES), len(model), p=_shares(np.array([outcome.share for outcome in OUTCOMES])))
    return np.where(failed, kinds, 0)


def _durations(rng: Generator, model: Numbers, outcome: Numbers, output_tokens: Numbers) -> tuple[Numbers, Numbers]:
    """(duration, time to first token) in ms: refusals are quick, timeouts take exactly as long as allowed."""
    first = _lognormal(rng, _column("first_token_ms")[model], 0.35, TIMEOUT_MS)
    pace = _column("per_token_ms")[model] * rng.lognormal(0.0, 0.18, len(model))
    answered = np.minimum(first + (pace * output_tokens).astype(np.int64), TIMEOUT_MS - 1)
    refused = rng.integers(15, 400, len(model))
    duration = np.where(outcome == 0, answered, np.where(outcome == TIMEOUT, TIMEOUT_MS, refused))
    return duration, np.minimum(first, duration)


def draw_at(rng: Generator, request_ids: list[str], moments: Numbers, usage: tuple[Numbers, Numbers] | None) -> Traffic:
    """Requests at `moments` with every other dimension drawn.

    `usage` is (input tokens, output tokens) of each request; when None both are drawn from the model.
    """
    count = len(moments)
    model = rng.choice(len(MODELS), count, p=_shares(_column("share")))
    user = rng.choice(USERS, count, p=_shares(np.arange(1.0, USERS + 1) ** -0.85))
    if usage is None:
        usage = (
            _lognormal(rng, _column("input_tokens")[model], 0.9, 180_000),
            _lognormal(rng, _column("output_tokens")[model], 0.8, 16_000),
        )
    input_tokens, output_tokens = usage
    outcome = _outcomes(rng, model)
    duration, first_token = _durations(rng, model, outcome, output_tokens)
    cached = np.where(rng.random(count) < 0.4, input_tokens * rng.uniform(0.3, 0.85, count), 0)
    creates = np.array([entry.provider == "anthropic" for entry in MODELS])[model] & (rng.random(count) < 0.2)
    thinks = np.array([entry.thinks for entry in MODELS])[model]
    return Traffic(
        request_ids=request_ids,
        moments=moments,
        model=model,
        outcome=outcome,
        user=user,
        key=rng.integers(0, 1 + user % KEYS_PER_USER),
        usage_known=np.ones(count, dtype=np.bool_),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached.astype(np.int64),
        cache_creation_tokens=np.where(creates, input_tokens * 0.12, 0).astype(np.int64),
        thinking_tokens=np.where(thinks, output_tokens * rng.uniform(0, 0.6, count), 0).astype(np.int64),
        duration_ms=duration,
        overhead_ms=np.minimum(rng.integers(2, 14, count), duration),
        first_token_ms=first_token,
        session=rng.integers(0, 12, count),
    )


def _without_usage(traffic: Traffic) -> Traffic:
    """A refused request used no tokens; the usage of one that timed out is unknown."""
    usage = np.array([outcome.usage for outcome in OUTCOMES])[traffic.outcome]
    full = usage == "full"
    return replace(
        traffic,
        usage_known=usage != "unknown",
        input_tokens=traffic.input_tokens * full,
        output_tokens=traffic.output_tokens * full,
        cached_tokens=traffic.cached_tokens * full,
        cache_creation_tokens=traffic.cache_creation_tokens * full,
        thinking_tokens=traffic.thinking_tokens * full,
    )


def draw(seed: int, count: int, start: datetime, end: datetime) -> Traffic:
    """`count` requests that arrive within `start <= t < end`, and one broken record for every 5,000 of them
    (at least one)."""
    rng = np.random.default_rng(seed)
    digits = rng.bytes(12 * count).hex()
    request_ids = [f"req-{digits[24 * n : 24 * n + 24]}" for n in range(count)]
    traffic = draw_at(rng, request_ids, _moments(rng, count, start, end), None)
    broken = rng.choice(count, max(1, count // BROKEN_EVERY), replace=False)
    return replace(_without_usage(traffic), broken_before=frozenset(broken.tolist()))


def _bodies(application: Application, model: Model) -> dict[str, Any]:
    question = f"Please {application.prompt.replace('-', ' ')} for the {application.team} team."
    return {
        "request_body": {"model": model.name, "messages": [{"role": "user", "content": question}]},
        "response_body": {"choices": [{"message": {"role": "assistant", "content": "Done, see the summary."}}]},
    }


def _usage(traffic: Traffic, part: slice) -> Iterator[dict[str, int]]:
    """The token fields of each request; none where usage is unknown."""
    columns = (
        traffic.input_tokens,
        traffic.output_tokens,
        traffic.cached_tokens,
        traffic.cache_creation_tokens,
        traffic.thinking_tokens,
    )
    rows = zip(*(column[part].tolist() for column in columns), strict=True)
    for known, (prompt, answer, *details) in zip(traffic.usage_known[part].tolist(), rows, strict=True):
        fields = {"input_tokens": prompt, "output_tokens": answer}
        fields |= {name: count for name, count in zip(DETAILS, details, strict=True) if count}
        yield fields if known else {}


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    fields: dict[str, Any] = {"status": outcome.status, "status_code": outcome.status_code}
    if outcome.error_type:
        fields |= {"error_type": outcome.error_type, "error_message": outcome.error_message}
    return fields


def _events(traffic: Traffic, part: slice) -> Iterator[dict[str, Any]]:
    names = ("model", "outcome", "user", "key", "session", "duration_ms", "overhead_ms", "first_token_ms")
    columns = (getattr(traffic, name)[part].tolist() for name in names)
    stamps = np.datetime_as_string(traffic.moments[part].astype("datetime64[us]"), timezone="UTC").tolist()
    rows = zip(traffic.request_ids[part], stamps, _usage(traffic, part), *columns, strict=True)
    for request_id, stamp, usage, kind, ended, user, key, session, duration, overhead, first in rows:
        model, outcome = MODELS[kind], OUTCOMES[ended]
        event = {
            "request_id": request_id,
            "timestamp": stamp,
            "provider": model.provider,
            "model_name": model.name,
            **_outcome_fields(outcome),
            **caller_fields(user, key),
            **usage,
            "duration_ms": duration,
            "upstream_duration_ms": duration - overhead,
            "llm_parameters": {"temperature": 0.2, "max_tokens": 4096, "stream": ended == 0},
            "session_id": f"s-{user:03d}-{session:02d}",
        }
        if outcome.usage == "full":
            event["time_to_first_token_ms"] = first
        if session == 0 and duration % 2:  # about one in twenty-five
            event |= _bodies(APPLICATIONS[user % len(APPLICATIONS)], model)
        yield event


def _broken(event: dict[str, Any], kind: int) -> bytes:
    """The event with one of the mistakes that gateways make."""
    name, value = (
        ("timestamp", event["timestamp"].removesuffix("Z")),
        ("input_tokens", -1),
        ("model_name", None),
        ("cached_input_tokens", 10**6),
        ("status_code", "OK"),
        ("user_id", "nul\0byte"),
    )[kind % 6]
    encoded = msgspec.json.encode({**event, "request_id": f"broken-{kind:04d}", name: value})
    return encoded[:-40] if kind % 7 == 6 else encoded


def records(traffic: Traffic) -> Iterator[Record]:
    """(key, value) of every Kafka record in order, the broken ones among them."""
    encoder, broken, position = msgspec.json.Encoder(), 0, 0
    for first in range(0, len(traffic.moments), CHUNK):
        for event in _events(traffic, slice(first, first + CHUNK)):
            if position in traffic.broken_before:
                yield f"broken-{broken:04d}".encode(), _broken(event, broken)
                broken += 1
            yield event["request_id"].encode(), encoder.encode(event)
            position += 1


def _tallies(measures: Numbers, group: Numbers) -> dict[int, Tally]:
    """Sums of the rows of `measures` (a column for each field of Tally) for each value of `group`."""
    keys, positions = np.unique(group, return_inverse=True)
    sums = np.zeros((len(keys), measures.shape[1]), dtype=np.int64)
    np.add.at(sums, positions, measures)
    return {key: Tally(*row) for key, row in zip(keys.tolist(), sums.tolist(), strict=True)}


def _by_status(by_outcome: dict[int, Tally]) -> dict[str, Tally]:
    totals: dict[str, Tally] = {}
    for number, tally in by_outcome.items():
        status = OUTCOMES[number].status
        before = totals.get(status, Tally())
        totals[status] = Tally(*(a + b for a, b in zip(before, tally, strict=True)))
    return totals


def expected(traffic: Traffic) -> Expected:
    """The sums that the records of `traffic` must give, computed from its columns."""
    ones = np.ones(len(traffic.moments), dtype=np.int64)
    failed = (traffic.outcome != 0).astype(np.int64)
    without_cost = (
        (traffic.model == UNPRICED_MODEL) & traffic.usage_known,
        ~traffic.usage_known & (failed == 0),
        ~traffic.usage_known & (failed == 1),
    )
    used = (traffic.input_tokens, traffic.output_tokens, traffic.cached_tokens)
    measures = np.stack([ones, failed, *without_cost, *(column * traffic.usage_known for column in used)], axis=1)
    by_hour = _tallies(measures, traffic.moments // MICROS_PER_HOUR)
    by_key = _tallies(measures, traffic.user * KEYS_PER_USER + traffic.key)
    return Expected(
        total=Tally(*measures.sum(axis=0).tolist()),
        dead_letters=len(traffic.broken_before),
        by_model={MODELS[number].name: tally for number, tally in _tallies(measures, traffic.model).items()},
        by_user={user_id(number): tally for number, tally in _tallies(measures, traffic.user).items()},
        by_api_key={api_key_id(*divmod(number, KEYS_PER_USER)): tally for number, tally in by_key.items()},
        by_status=_by_status(_tallies(measures, traffic.outcome)),
        by_hour={EPOCH + timedelta(hours=number): tally for number, tally in by_hour.items()},
    )
