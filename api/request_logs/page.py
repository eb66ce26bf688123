"""Pages of request logs, one log by its id, and how many there are.

Which rows a page holds is worked out on the few columns of the key; everything else is then read for these
rows only. Sorting whole rows would read all of them, and from every part of the table.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from aggregator.costs import explain, unpriced_reason
from aggregator.rollups.measures import KEY_COLUMNS, REQUESTS, Dimension
from aggregator.rollups.planner import EPOCH, Question, compile_answer, micros
from api.parameters import LAST_MOMENT, LogParameters, OrderBy, OrderDirection
from api.request_logs.cursor import Cursor, PageTotal, decode, encode
from api.request_logs.schemas import CostExplanation, ExplainedLog, LogPage, RequestLog
from api.security.reader import Reader

# Counting further costs more than the number is worth.
COUNT_LIMIT = 1_000_000
# A page by time is looked for in a window next to its start, and on in the next ones. Reading in order stops early only
# without a filter, and a cursor is one: without a window ClickHouse reads far past the page.
FIRST_WINDOW = timedelta(hours=1)
# How much wider than the last a window is where that held nothing, and at most.
GROWTH_OF_WINDOWS = 30

PAYLOAD_COLUMNS = (
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
    "response_body_raw",
    "llm_parameters",
    "input_variables",
)
DERIVED_FIELDS = {"id", "input_tokens_cost_microdollar", "output_tokens_cost_microdollar", "metadata"}
ROW_COLUMNS = (
    "toJSONString(request_logs.metadata) AS metadata",
    *(name for name in RequestLog.model_fields if name not in DERIVED_FIELDS.union(PAYLOAD_COLUMNS, KEY_COLUMNS)),
)

KEY = f"({', '.join(KEY_COLUMNS)})"
SELECT_KEYS = f"SELECT {', '.join(KEY_COLUMNS)}, duration_ms, input_tokens, output_tokens, cityHash64{KEY} AS key_hash"
SELECT_ROWS = f"SELECT {', '.join((*KEY_COLUMNS, *ROW_COLUMNS))}, cityHash64{KEY} AS key_hash"
CURSOR_TIMESTAMP = "fromUnixTimestamp64Micro({cursor_timestamp_us:Int64}, 'UTC')"
CURSOR = (
    f"({CURSOR_TIMESTAMP}, {{cursor_request_id:String}},"
    " fromUnixTimestamp64Milli({cursor_created_at_ms:Int64}, 'UTC'),"
    " {cursor_source_partition:UInt32}, {cursor_source_offset:UInt64})"
)
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
# Filters that a rollup can count under; the others are not kept there.
TIMES = {"start_time", "end_time"}
COUNTABLE = {Dimension.USER, Dimension.API_KEY, Dimension.MODEL, Dimension.STATUS, *TIMES}

# The timestamps find the granules by the primary key, the hashes the rows, and both are short whatever the ids
# look like. Equal hashes of different rows are told apart by the whole key.
OF_KEYS = f"""
WHERE timestamp IN (SELECT fromUnixTimestamp64Micro(arrayJoin({{timestamps_us:Array(Int64)}}), 'UTC'))
AND cityHash64{KEY} IN {{hashes:Array(UInt64)}}
"""
ROWS = f"SELECT {', '.join((*KEY_COLUMNS, *ROW_COLUMNS))} FROM request_logs {OF_KEYS}"
PAYLOADS = f"SELECT {', '.join((*KEY_COLUMNS, *PAYLOAD_COLUMNS))} FROM request_payloads {OF_KEYS}"
# Planned faster than OF_KEYS, which finds many. Others may have the same id and the same microsecond.
PAYLOADS_OF_ROW = f"""
SELECT {", ".join((*KEY_COLUMNS, *PAYLOAD_COLUMNS))} FROM request_payloads
WHERE timestamp = fromUnixTimestamp64Micro({{timestamp_us:Int64}}, 'UTC') AND request_id = {{request_id:String}}
"""
# Everything but the key is read for the one row only.
NEWEST_OF_ID = f"""
{SELECT_ROWS} FROM request_logs
WHERE request_id = {{request_id:String}}
ORDER BY timestamp DESC, created_at DESC, source_partition DESC, source_offset DESC LIMIT 1
"""
# Reading in the order of the table would win over the projection by_request_id and scan every partition; and in a part
# below a million rows, as every new one is, all ids would be read.
LOOKUP_SETTINGS = {"optimize_read_in_order": 0, "min_table_rows_to_use_projection_index": 0}
OLDEST_AND_NEWEST = "SELECT min(timestamp) AS oldest, max(timestamp) AS newest FROM request_logs"

Row = dict[str, Any]


def _filters(parameters: LogParameters) -> dict[str, Any]:
    """The filters that are set, as values to bind."""
    given = parameters.model_dump(include=set(CONDITIONS), exclude_none=True)
    return {name: micros(value) if isinstance(value, datetime) else value for name, value in given.items()}


def _where(filters: Iterable[str]) -> str:
    return " AND ".join(CONDITIONS[name] for name in filters) or "1"


def _order(parameters: LogParameters) -> str:
    direction = parameters.order_direction.value
    columns = [f"{column} {direction}" for column in KEY_COLUMNS]
    if parameters.order_by is not OrderBy.TIMESTAMP:
        columns.insert(0, f"{parameters.order_by.value} {direction} NULLS LAST")
    return ", ".join(columns)


def _after(parameters: LogParameters, cursor: Cursor) -> str:
    """Condition for the rows after the cursor, in the order of `_order`."""
    beyond = "<" if parameters.order_direction is OrderDirection.DESC else ">"
    later_key = f"{KEY} {beyond} {CURSOR}"
    column = parameters.order_by.value
    if parameters.order_by is OrderBy.TIMESTAMP:
        # The first comparison follows from the second, but only it lets the primary key skip.
        return f"timestamp {beyond}= {CURSOR_TIMESTAMP} AND {later_key}"
    if cursor.value is None:
        return f"{column} IS NULL AND {later_key}"
    value = "{cursor_value:UInt32}"
    return f"({column} {beyond} {value} OR {column} IS NULL OR ({column} = {value} AND {later_key}))"


def page_query(
    parameters: LogParameters, cursor: Cursor | None, limit: int, select: str = SELECT_KEYS
) -> tuple[str, Row]:
    """SQL for up to `limit` rows after `cursor`, and its parameters."""
    filters = _filters(parameters)
    where = _where(filters)
    if cursor is not None:
        where += f" AND {_after(parameters, cursor)}"
        filters |= {f"cursor_{name}": value for name, value in cursor._asdict().items() if value is not None}
    sql = f"{select} FROM request_logs\nWHERE {where}\nORDER BY {_order(parameters)}\nLIMIT {limit}"
    return sql, filters


def _range(edges: Row, parameters: LogParameters) -> tuple[datetime, datetime]:
    """From the oldest to the newest moment at which there can be a row."""
    oldest = max(edges["oldest"].replace(tzinfo=UTC), parameters.start_time or EPOCH)
    return oldest, min(edges["newest"].replace(tzinfo=UTC), parameters.end_time or LAST_MOMENT)


def _reads_whole_rows(parameters: LogParameters, total: PageTotal | None) -> bool:
    """Whether one statement for a page is cheaper than one for its keys and one for their rows.

    Planning 65 columns takes 6 ms, so not where many windows may have to be looked through, or nothing is there.
    """
    return parameters.order_by is OrderBy.TIMESTAMP and total is not None and total.logs > 0


def _page_and_one(
    reader: Reader,
    parameters: LogParameters,
    cursor: Cursor | None,
    total: PageTotal | None,
    edges: Row | None,
    select: str,
) -> list[Row]:
    """A page as `select` says, and one more if there are more. `total` only helps to guess how far they reach;
    `edges` are those of OLDEST_AND_NEWEST, for a page by time."""
    wanted = parameters.page_size + 1
    if edges is None:
        return reader.query(*page_query(parameters, cursor, wanted, select))
    is_backwards = parameters.order_direction is OrderDirection.DESC
    oldest, newest = _range(edges, parameters)
    width = FIRST_WINDOW
    if total is not None:
        # Twice as far as the page would reach if its rows came evenly; a page of all there are is one window.
        width = max(width, 2 * (newest - oldest) * (wanted / max(total.logs, 1)))
    if cursor is not None:
        at = EPOCH + timedelta(microseconds=cursor.timestamp_us)
        oldest, newest = (oldest, at) if is_backwards else (at, newest)
    rows: list[Row] = []
    # The outer bounds stay those that were asked for: rows may have arrived beyond the oldest and the newest.
    rest = parameters
    while True:
        is_last = width >= newest - oldest
        window = rest
        if not is_last and is_backwards:
            newest -= width
            window, rest = (rest.model_copy(update=bound) for bound in ({"start_time": newest}, {"end_time": newest}))
        elif not is_last:
            oldest += width
            window, rest = (rest.model_copy(update=bound) for bound in ({"end_time": oldest}, {"start_time": oldest}))
        found = reader.query(*page_query(window, cursor, wanted - len(rows), select))
        rows += found
        if is_last or len(rows) == wanted:
            return rows
        still_wanted = wanted - len(rows)
        width *= min(GROWTH_OF_WINDOWS, 1 + 1.5 * still_wanted / len(found)) if found else GROWTH_OF_WINDOWS


def _cheap_count(reader: Reader, parameters: LogParameters) -> tuple[str, Row] | None:
    """SQL for `requests`, exact and cheap: from the primary key, or from the rollups where they keep the filters."""
    filters = _filters(parameters)
    if not COUNTABLE.issuperset(filters):
        return None
    if TIMES.issuperset(filters) and reader.caller.restriction is None:
        return f"SELECT count() AS requests FROM request_logs WHERE {_where(filters)}", filters
    equals = {Dimension(name): value for name, value in filters.items() if name in set(Dimension)}
    return compile_answer(reader.confine(Question((REQUESTS,), parameters.span, equals)), "group_key", 0)


def _surroundings(
    reader: Reader, parameters: LogParameters, total: PageTotal | None
) -> tuple[PageTotal | None, Row | None]:
    """How many logs there are, unless it is known or not cheap, and the edges of a page by time; asked at once."""
    count = _cheap_count(reader, parameters) if total is None else None
    edges = (OLDEST_AND_NEWEST, dict[str, Any]()) if parameters.order_by is OrderBy.TIMESTAMP else None
    found = iter(reader.query_all([query for query in (count, edges) if query is not None]))
    if count is not None:
        total = PageTotal(sum(row["requests"] for row in next(found)), False)
    return total, next(found)[0] if edges is not None else None


def _count_rows(reader: Reader, parameters: LogParameters) -> PageTotal:
    """Up to COUNT_LIMIT."""
    filters = _filters(parameters)
    sql = f"SELECT count() AS found FROM (SELECT 1 FROM request_logs WHERE {_where(filters)} LIMIT {COUNT_LIMIT + 1})"
    found = reader.query(sql, filters)[0]["found"]
    return PageTotal(min(found, COUNT_LIMIT), found > COUNT_LIMIT)


def key_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY_COLUMNS)


def keys_bound(keys: Sequence[Row]) -> dict[str, Any]:
    """The parameters of OF_KEYS."""
    return {
        "timestamps_us": sorted({micros(key["timestamp"]) for key in keys}),
        "hashes": [key["key_hash"] for key in keys],
    }


def in_order_of(keys: Sequence[Row], rows: Iterable[Row]) -> list[Row]:
    found = {key_of(row): row for row in rows}
    # A row may have reached the end of its time to live since its key was read.
    return [found[key] for key in map(key_of, keys) if key in found]


def rows_by_key(reader: Reader, sql: str, keys: list[Row]) -> list[Row]:
    """The rows of `keys` that `sql` (with OF_KEYS) reads, in the order of `keys`."""
    return in_order_of(keys, reader.query(sql, keys_bound(keys))) if keys else []


def _with_payloads(rows: Iterable[Row], payloads: Iterable[Row]) -> Iterator[Row]:
    """A payload that is not there is empty."""
    missing = dict.fromkeys(PAYLOAD_COLUMNS, "")
    by_key = {key_of(payload): payload for payload in payloads}
    return ({**missing, **by_key.get(key_of(row), {}), **row} for row in rows)


def _read_payloads(reader: Reader, rows: list[Row]) -> Iterator[Row]:
    return _with_payloads(rows, reader.query(PAYLOADS, keys_bound(rows)) if rows else [])


def _read_rows(reader: Reader, keys: list[Row]) -> Iterator[Row]:
    """The rows with their payloads in the order of `keys`."""
    if not keys:
        return iter(())
    bound = keys_bound(keys)
    rows, payloads = reader.query_all([(ROWS, bound), (PAYLOADS, bound)])
    return _with_payloads(in_order_of(keys, rows), payloads)


def _microdollars(cost: Decimal | None) -> int | None:
    return None if cost is None else int((cost * 1_000_000).quantize(Decimal(1), ROUND_HALF_UP))


def _fields_of(row: Row) -> Row:
    created_at_ms = micros(row["created_at"]) // 1000
    return {
        **row,
        "id": f"{created_at_ms:x}-{row['source_partition']:x}-{row['source_offset']:x}",
        "input_tokens_cost_microdollar": _microdollars(row["input_tokens_cost"]),
        "output_tokens_cost_microdollar": _microdollars(row["output_tokens_cost"]),
    }


def _explained(row: Row) -> ExplainedLog:
    found = explain(row)
    return ExplainedLog(
        **_fields_of(row),
        cost_explanation=found and CostExplanation.model_validate(found),
        unpriced_reason=unpriced_reason(row),
    )


def _cursor_of(row: Row, order_by: OrderBy) -> Cursor:
    return Cursor(
        value=None if order_by is OrderBy.TIMESTAMP else row[order_by.value],
        timestamp_us=micros(row["timestamp"]),
        request_id=row["request_id"],
        created_at_ms=micros(row["created_at"]) // 1000,
        source_partition=row["source_partition"],
        source_offset=row["source_offset"],
    )


def list_logs(reader: Reader, parameters: LogParameters) -> LogPage:
    """One page. Raises ApiError 400 for a page token that does not belong to these filters and this order."""
    query = parameters.model_dump(mode="json", exclude={"page_size", "page_token"})
    cursor, total = None, None
    if parameters.page_token:
        cursor, total = decode(query, parameters.page_token)
    total, edges = _surroundings(reader, parameters, total)
    select, read = (SELECT_ROWS, _read_payloads) if _reads_whole_rows(parameters, total) else (SELECT_KEYS, _read_rows)
    found = _page_and_one(reader, parameters, cursor, total, edges, select)
    page, has_more = found[: parameters.page_size], len(found) > parameters.page_size
    if total is None:
        total = _count_rows(reader, parameters) if has_more else PageTotal(len(page), False)
    return LogPage(
        logs=[RequestLog(**_fields_of(row)) for row in read(reader, page)],
        next_page_token=encode(query, _cursor_of(page[-1], parameters.order_by), total) if has_more else "",
        total_count=total.logs,
        total_count_is_approximate=total.is_approximate,
    )


def find_log(reader: Reader, request_id: str) -> ExplainedLog | None:
    """The newest log with that id."""
    rows = reader.query(NEWEST_OF_ID, {"request_id": request_id}, LOOKUP_SETTINGS)
    if not rows:
        return None
    key = {"timestamp_us": micros(rows[0]["timestamp"]), "request_id": request_id}
    return next(map(_explained, _with_payloads(rows, reader.query(PAYLOADS_OF_ROW, key))))
