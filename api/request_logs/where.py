"""The filters of a list of request logs as SQL."""

from typing import Any

from aggregator.clickhouse.sql import Binder, all_of, time_range
from aggregator.rollups.measures import Dimension
from api.request_logs.parameters import LogParameters

# The comparison with the value, and the value's type.
COMPARISONS = {
    "user_id": ("user_id =", "String"),
    "api_key_id": ("api_key_id =", "String"),
    "model_name": ("model_name =", "String"),
    "status": (f"{Dimension.STATUS.sql} =", "String"),
    "is_error": ("is_error =", "Bool"),
    "status_code": ("status_code =", "UInt16"),
    "min_duration_ms": ("duration_ms >=", "UInt32"),
    "max_duration_ms": ("duration_ms <=", "UInt32"),
}


def filters_of(parameters: LogParameters) -> dict[str, Any]:
    """The values of the filters that are set, besides the range of time."""
    return parameters.model_dump(include=set(COMPARISONS), exclude_none=True)


def where(parameters: LogParameters, binder: Binder) -> str:
    """SQL for the range of time and all filters."""
    terms = []
    for name, value in filters_of(parameters).items():
        comparison, type_name = COMPARISONS[name]
        if name == Dimension.STATUS:
            value = Dimension.STATUS.meant_by(value)
        terms.append(f"{comparison} {binder.bind(value, type_name)}")
    return all_of(time_range("timestamp", parameters.span), *terms)
