"""How many request logs match: exactly where that is cheap, else up to a limit."""

from aggregator.clickhouse.sql import Binder
from aggregator.rollups.measures import REQUESTS, Dimension
from aggregator.rollups.planner import Question, compile_answer
from api.request_logs.cursor import PageTotal
from api.request_logs.parameters import LogParameters
from api.request_logs.where import filters_of, where
from api.request_rows import Row
from api.security.reader import Reader

# Counting further costs more than the number is worth.
COUNT_LIMIT = 1_000_000
# The filters that rollups have.
COUNTABLE = {Dimension.USER, Dimension.API_KEY, Dimension.MODEL, Dimension.STATUS}


def cheap_count(reader: Reader, parameters: LogParameters) -> tuple[str, Row] | None:
    """SQL whose `requests` add up to the exact count, from the primary key or from rollups; None if neither can answer.

    Rollups can only where they have every filter as a dimension.
    """
    filters = filters_of(parameters)
    if not COUNTABLE.issuperset(filters):
        return None
    if not filters and reader.caller.restriction is None:
        binder = Binder()
        return f"SELECT count() AS requests FROM request_logs WHERE {where(parameters, binder)}", binder.parameters
    equals = {Dimension(name): value for name, value in filters.items()}
    return compile_answer(reader.confine(Question((REQUESTS,), parameters.span, equals)), "group_key", 0)


def count_rows(reader: Reader, parameters: LogParameters) -> PageTotal:
    """The number of matching logs, counted up to COUNT_LIMIT."""
    binder = Binder()
    matches = f"SELECT 1 FROM request_logs WHERE {where(parameters, binder)} LIMIT {COUNT_LIMIT + 1}"
    found = reader.query(f"SELECT count() AS found FROM ({matches})", binder.parameters)[0]["found"]
    return PageTotal(min(found, COUNT_LIMIT), found > COUNT_LIMIT)
