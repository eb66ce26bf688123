"""The filters of a list of request logs as SQL conditions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from aggregator.times import micros
from api.request_logs.parameters import LogParameters

CONDITIONS = {
    "user_id": "user_id = {user_id:String}",
    "api_key_id": "api_key_id = {api_key_id:String}",
    "model_name": "model_name = {model_name:String}",
    "status": "status = {status:String}",
    "status_code": "status_code = {status_code:UInt16}",
    "start_time": "timestamp >= fromUnixTimestamp64Micro({start_time:Int64}, 'UTC')",
    "end_time": "timestamp < fromUnixTimestamp64Micro({end_time:Int64}, 'UTC')",
    "min_duration_ms": "duration_ms >= {min_duration_ms:UInt32}",
    "max_duration_ms": "duration_ms <= {max_duration_ms:UInt32}",
}


def filters_of(parameters: LogParameters) -> dict[str, Any]:
    """The filters that are set, as values to bind."""
    given = parameters.model_dump(include=set(CONDITIONS), exclude_none=True)
    return {name: micros(value) if isinstance(value, datetime) else value for name, value in given.items()}


def where(filters: Iterable[str]) -> str:
    """SQL for all of these filters; values are bound under their names."""
    return " AND ".join(CONDITIONS[name] for name in filters) or "1"
