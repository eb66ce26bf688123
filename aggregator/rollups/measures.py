"""The measures, the dimensions, and the rollups that hold measures by dimensions.

The planner, `rollups verify`, `rollups rebuild` and the tests all read this list. The tables and views are in
aggregator/clickhouse/migrations, 0004_rollups.sql and 0009_rollups_without_cost.sql.
"""

from dataclasses import dataclass
from enum import StrEnum

from aggregator.clickhouse.sql import ascii_lower
from aggregator.clickhouse.tables import REQUEST_LOGS

# The relative error e of every percentile. Durations are counted in buckets whose bounds grow by (1 + e) / (1 - e), and
# a bucket is reported as the value that is within e of all values in it: DDSketch (Masson et al. 2019, 2.1 and 2.2).
RELATIVE_ERROR = 0.01
LEVELS = (0.5, 0.95, 0.99)
_GROWTH = "(1.01 / 0.99)"
# Slot 0 is for unknown durations, 1 for 0 ms, n for those over growth^(n - 3) up to growth^(n - 2) ms; at most 1,111.
_MS = "assumeNotNull(duration_ms)"
_SLOT = f"toUInt16(1 + ({_MS} > 0) + ceil(log(greatest({_MS}, 1)) / log({_GROWTH})))"
_MIDDLE_MS = f"if(slot = 1, 0, 2 * pow({_GROWTH}, slot - 2) / (1 + {_GROWTH}))"
_QUANTILES = f"({', '.join(map(str, LEVELS))})"


class Dimension(StrEnum):
    """A column of request_logs that rollups keep and questions filter or group by."""

    PROVIDER = "provider"
    MODEL = "model_name"
    STATUS = "status"
    USER = "user_id"
    API_KEY = "api_key_id"

    @property
    def sql(self) -> str:
        """What questions filter and group by. A status is stored as the gateway wrote it, and read without its case, so
        that old rows and new ones are one group."""
        return f"lower({self.value})" if self is Dimension.STATUS else self.value

    def meant_by(self, value: str) -> str:
        """The value that `sql` is compared with."""
        return ascii_lower(value) if self is Dimension.STATUS else value


@dataclass(frozen=True)
class Measure:
    """A mergeable aggregate, stored under `name` in every rollup.

    These are SQL: `from_raw` aggregates rows of request_logs to the state that a rollup stores, `merge` combines
    stored states into one, and `finish` turns a combined state into the answer. `{column}` is the state's column,
    `{table}` where it and those of other measures are.
    """

    name: str
    from_raw: str
    merge: str = "sum({column})"
    finish: str = "sum({column})"

    def finished(self, table: str) -> str:
        """SQL for the answer over the states of `table`."""
        return self.finish.format(column=f"{table}.{self.name}", table=table)


def _summed(column: str) -> Measure:
    return Measure(column, f"sum(ifNull({REQUEST_LOGS}.{column}, 0))")


REQUESTS = Measure("requests", "count()")
ERRORS = Measure("errors", "countIf(is_error)")
# Requests without a cost. There is usage and no price for it: the operator's work. A request that succeeded reported no
# usage: the gateway's work. One that failed reported none: nothing to do.
_NO_COST = f"isNull({REQUEST_LOGS}.cost)"
_USAGE = (
    f"(isNotNull({REQUEST_LOGS}.input_tokens) OR isNotNull({REQUEST_LOGS}.output_tokens) OR {REQUEST_LOGS}.usage != '')"
)
UNPRICED = Measure("unpriced", f"countIf({_NO_COST} AND {_USAGE})")
MISSING_USAGE = Measure("missing_usage", f"countIf({_NO_COST} AND NOT {_USAGE} AND NOT is_error)")
FAILED_WITHOUT_USAGE = Measure("failed_without_usage", f"countIf({_NO_COST} AND NOT {_USAGE} AND is_error)")
WITHOUT_COST = (UNPRICED, MISSING_USAGE, FAILED_WITHOUT_USAGE)
INPUT_TOKENS = _summed("input_tokens")
OUTPUT_TOKENS = _summed("output_tokens")
CACHED_INPUT_TOKENS = _summed("cached_input_tokens")
CACHE_CREATION_INPUT_TOKENS = _summed("cache_creation_input_tokens")
THINKING_TOKENS = _summed("thinking_tokens")
COST = _summed("cost")
# Spelled out: ClickHouse drops no column that a view names, and so a later migration could not change this one.
COST_BEFORE_FEE = Measure("cost_before_fee", f"sum(ifNull({REQUEST_LOGS}.cost - {REQUEST_LOGS}.fees[1], 0))")
INPUT_TOKENS_COST = _summed("input_tokens_cost")
CACHED_INPUT_TOKENS_COST = _summed("cached_input_tokens_cost")
CACHE_CREATION_INPUT_TOKENS_COST = _summed("cache_creation_input_tokens_cost")
OUTPUT_TOKENS_COST = _summed("output_tokens_cost")
DURATION_SUM = Measure("duration_ms_sum", "sum(ifNull(duration_ms, 0))")
DURATION_COUNT = Measure("duration_ms_count", "count(duration_ms)")
# Of no known duration: bounds that leave every percentile as it is. So do the columns' defaults, 0 and the largest
# number, which stand for rows whose extremes nobody has kept.
DURATION_MIN = Measure(
    "duration_ms_min", f"ifNull(min({REQUEST_LOGS}.duration_ms), 4294967295)", "min({column})", "min({column})"
)
DURATION_MAX = Measure(
    "duration_ms_max", f"ifNull(max({REQUEST_LOGS}.duration_ms), 0)", "max({column})", "max({column})"
)
# By level, NaN where no duration is known; never beyond the extremes, so a question names DURATION_MIN and DURATION_MAX
# beside it.
DURATION_HISTOGRAM = Measure(
    "duration_ms_histogram",
    f"quantilesExactWeightedStateIf{_QUANTILES}({_SLOT}, 1, isNotNull(duration_ms))",
    merge=f"quantilesExactWeightedMergeState{_QUANTILES}({{column}})",
    finish=(
        f"arrayMap(slot -> if(slot = 0, nan, least(greatest({_MIDDLE_MS}, min({{table}}.duration_ms_min)),"
        f" max({{table}}.duration_ms_max))), quantilesExactWeightedMerge{_QUANTILES}({{column}}))"
    ),
)

MEASURES = (
    REQUESTS,
    ERRORS,
    *WITHOUT_COST,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHED_INPUT_TOKENS,
    CACHE_CREATION_INPUT_TOKENS,
    THINKING_TOKENS,
    COST,
    COST_BEFORE_FEE,
    INPUT_TOKENS_COST,
    CACHED_INPUT_TOKENS_COST,
    CACHE_CREATION_INPUT_TOKENS_COST,
    OUTPUT_TOKENS_COST,
    DURATION_SUM,
    DURATION_COUNT,
    DURATION_MIN,
    DURATION_MAX,
    DURATION_HISTOGRAM,
)


class Bucket(StrEnum):
    """Width of a bucket of time; a week starts on Monday."""

    SECOND = "second"
    MINUTE = "minute"
    FIVE_MINUTES = "five_minutes"
    QUARTER_HOUR = "quarter_hour"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


# Shorter than an hour: a rollup of a coarser grain cannot separate them.
FINE_SECONDS = {Bucket.SECOND: 1, Bucket.MINUTE: 60, Bucket.FIVE_MINUTES: 300, Bucket.QUARTER_HOUR: 900}
WIDTH_SECONDS = {**FINE_SECONDS, Bucket.HOUR: 3_600, Bucket.DAY: 86_400}


@dataclass(frozen=True)
class Summary:
    """`MEASURES` per `dimensions` and bucket of time (UTC) of `grain`; `start` is SQL over a rollup's `bucket`."""

    start: str
    grain: Bucket
    dimensions: tuple[Dimension, ...]


@dataclass(frozen=True)
class Rollup:
    """A table of `MEASURES` and its `summaries`, coarsest first; the last is the table itself, with every dimension.

    The others are its projections: ClickHouse keeps them in each part of the table, so they cannot differ from it, and
    reads one by itself if a query has the projection's expressions.
    """

    table: str
    summaries: tuple[Summary, ...]

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        return self.summaries[-1].dimensions

    @property
    def grain_seconds(self) -> int:
        return WIDTH_SECONDS[self.summaries[-1].grain]

    def bucket_of(self, timestamp: str) -> str:
        """SQL for the bucket that a timestamp expression falls into."""
        return f"toStartOfInterval({timestamp}, INTERVAL {self.grain_seconds} SECOND)"


_MONTH, _DAY, _HOUR = "toDateTime(toStartOfMonth(bucket), 'UTC')", "toStartOfDay(bucket)", "toStartOfHour(bucket)"
_BY_MODEL = (Dimension.PROVIDER, Dimension.MODEL, Dimension.STATUS)
_BY_KEY = (Dimension.USER, Dimension.API_KEY)
_BY_USER = (*_BY_KEY, Dimension.MODEL, Dimension.STATUS)

# Cheapest first: the planner takes the first that can answer exactly.
ROLLUPS = (
    Rollup(
        "rollup_model",
        (
            Summary(_MONTH, Bucket.MONTH, _BY_MODEL),
            Summary(_DAY, Bucket.DAY, _BY_MODEL),
            Summary(_HOUR, Bucket.HOUR, (Dimension.STATUS,)),
            Summary("bucket", Bucket.QUARTER_HOUR, _BY_MODEL),
        ),
    ),
    Rollup(
        "rollup_user",
        (
            Summary(_MONTH, Bucket.MONTH, _BY_KEY),
            Summary(_DAY, Bucket.DAY, _BY_USER),
            Summary("bucket", Bucket.HOUR, _BY_USER),
        ),
    ),
)
