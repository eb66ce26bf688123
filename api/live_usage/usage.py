"""Usage by minute, of the current one and of the sixty before it, from raw rows."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aggregator.budgets.subject import SubjectKind
from aggregator.clickhouse.sql import all_of, time_range
from aggregator.rollups.measures import (
    COST,
    DURATION_COUNT,
    DURATION_SUM,
    ERRORS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    WITHOUT_COST,
)
from aggregator.times import EPOCH, Span
from api.live_usage.parameters import LiveParameters
from api.live_usage.schemas import LiveUsage, MinuteUsage
from api.security.reader import Reader

MINUTE = timedelta(minutes=1)
MINUTES = 60
MEASURES = (REQUESTS, ERRORS, *WITHOUT_COST, INPUT_TOKENS, OUTPUT_TOKENS, COST, DURATION_SUM, DURATION_COUNT)
CONDITIONS = {
    SubjectKind.TOTAL: "",
    SubjectKind.MODEL: "model_name = {value:String}",
    SubjectKind.USER: "user_id = {value:String}",
    SubjectKind.API_KEY: "api_key_id = {value:String}",
    SubjectKind.TAG: "has(tags, {value:String})",
}
LIVE = """
SELECT intDiv(toUnixTimestamp(timestamp), 60) AS minute, {measures} FROM request_logs
WHERE {where}
GROUP BY minute
"""


def minutes_query(parameters: LiveParameters, now: datetime, count: int) -> tuple[str, dict[str, Any]]:
    """SQL for the current minute and the `count` before it, and its parameters."""
    until = (now - EPOCH) // MINUTE + 1
    measures = ", ".join(f"{measure.from_raw} AS {measure.name}" for measure in MEASURES)
    span = Span(EPOCH + (until - 1 - count) * MINUTE, EPOCH + until * MINUTE)
    where = all_of(time_range("timestamp", span), CONDITIONS[parameters.scope])
    return LIVE.format(measures=measures, where=where), {"value": parameters.value}


def minutes_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, MinuteUsage]:
    """Usage by minutes since 1970; empty minutes are left out."""
    return {int(row["minute"]): _usage(row) for row in rows}


def _usage(row: Mapping[str, Any]) -> MinuteUsage:
    duration_count = row["duration_ms_count"]
    durations = (DURATION_SUM, DURATION_COUNT)
    return MinuteUsage(
        minute=EPOCH + int(row["minute"]) * MINUTE,
        avg_duration_ms=round(row["duration_ms_sum"] / duration_count, 3) if duration_count else None,
        **{measure.name: row[measure.name] for measure in MEASURES if measure not in durations},
    )


def as_answer(found: Mapping[int, MinuteUsage], now: datetime) -> LiveUsage:
    """The answer at `now`; minutes that were not found are empty."""
    this = (now - EPOCH) // MINUTE
    every = [found.get(n) or MinuteUsage(minute=EPOCH + n * MINUTE) for n in range(this, this - MINUTES - 1, -1)]
    return LiveUsage(as_of=now, current=every[0], minutes=every[1:])


def live_usage(reader: Reader, parameters: LiveParameters) -> LiveUsage:
    now = datetime.now(UTC)
    return as_answer(minutes_of(reader.query(*minutes_query(parameters, now, MINUTES))), now)
