"""Pages of request logs.

Which rows a page holds is worked out on the few columns of the key; everything else is then read for these
rows only. Sorting whole rows would read all of them, and from every part of the table.
"""

from datetime import datetime, timedelta
from typing import Any

from aggregator.clickhouse.sql import Binder, all_of, instant
from aggregator.clickhouse.tables import KEY_COLUMNS
from aggregator.times import from_micros, micros
from api.request_logs.count import cheap_count, count_rows
from api.request_logs.cursor import Cursor, PageTotal, decode, encode
from api.request_logs.parameters import LogParameters, OrderBy, OrderDirection
from api.request_logs.rows import SELECT_ROWS, fields_of, read_payloads, read_rows
from api.request_logs.schemas import LogPage, RequestLog
from api.request_logs.where import where
from api.request_rows import KEY, KEY_HASH, OLDEST_AND_NEWEST, Extent, Row, extent_of
from api.security.reader import Reader

# A page by time is read from windows of time, the first of which begins where the page does. Reading in order stops
# early only without a filter, and a cursor is one: without a window ClickHouse reads long past the page.
FIRST_WINDOW = timedelta(hours=1)
# By how much at most a window is wider than the one before, and by how much after an empty one.
WINDOW_GROWTH = 30

SELECT_KEYS = f"SELECT {', '.join(KEY_COLUMNS)}, duration_ms, input_tokens, output_tokens, {KEY_HASH}"


def _order(parameters: LogParameters) -> str:
    direction = parameters.order_direction.value
    columns = [f"{column} {direction}" for column in KEY_COLUMNS]
    if parameters.order_by is not OrderBy.TIMESTAMP:
        columns.insert(0, f"{parameters.order_by.value} {direction} NULLS LAST")
    return ", ".join(columns)


def _cursor_key(cursor: Cursor, binder: Binder) -> str:
    values = (
        instant(from_micros(cursor.timestamp_us)),
        binder.text(cursor.request_id),
        instant(from_micros(cursor.created_at_ms * 1000)),
        binder.bind(cursor.source_partition, "UInt32"),
        binder.bind(cursor.source_offset, "UInt64"),
    )
    return f"({', '.join(values)})"


def _after(parameters: LogParameters, cursor: Cursor, binder: Binder) -> str:
    """Condition for the rows after the cursor, in the order of `_order`."""
    beyond = "<" if parameters.order_direction is OrderDirection.DESC else ">"
    later_key = f"{KEY} {beyond} {_cursor_key(cursor, binder)}"
    column = parameters.order_by.value
    if parameters.order_by is OrderBy.TIMESTAMP:
        # The first comparison follows from the second, but only it lets the primary key skip.
        return f"timestamp {beyond}= {instant(from_micros(cursor.timestamp_us))} AND {later_key}"
    if cursor.value is None:
        return f"{column} IS NULL AND {later_key}"
    value = binder.bind(cursor.value, "UInt32")
    return f"({column} {beyond} {value} OR {column} IS NULL OR ({column} = {value} AND {later_key}))"


def page_query(
    parameters: LogParameters, cursor: Cursor | None, limit: int, select: str = SELECT_KEYS
) -> tuple[str, Row]:
    """SQL for up to `limit` rows after `cursor`, and its parameters."""
    binder = Binder()
    after = "" if cursor is None else _after(parameters, cursor, binder)
    condition = all_of(where(parameters, binder), after)
    sql = f"{select} FROM request_logs\nWHERE {condition}\nORDER BY {_order(parameters)}\nLIMIT {limit}"
    return sql, binder.parameters


def _total_and_extent(
    reader: Reader, parameters: LogParameters, total: PageTotal | None
) -> tuple[PageTotal | None, Extent | None]:
    """The number of logs, None if it is neither known nor cheap, and the extent, only for pages by time.

    Both are read at once.
    """
    count = cheap_count(reader, parameters) if total is None else None
    ends = (OLDEST_AND_NEWEST, dict[str, Any]()) if parameters.order_by is OrderBy.TIMESTAMP else None
    answers = iter(reader.query_all([query for query in (count, ends) if query is not None]))
    if count is not None:
        total = PageTotal(sum(row["requests"] for row in next(answers)), False)
    return total, extent_of(next(answers)[0]).within(parameters.span) if ends is not None else None


def _reads_whole_rows(parameters: LogParameters, total: PageTotal | None) -> bool:
    """Whether one statement for a page is cheaper than one for its keys and one for their rows.

    Planning whole rows takes milliseconds: not where many windows may have to be looked through, or nothing is there.
    """
    return parameters.order_by is OrderBy.TIMESTAMP and total is not None and total.logs > 0


def _first_width(total: PageTotal | None, extent: Extent, wanted: int) -> timedelta:
    """Twice as long as `wanted` rows take if they came evenly; a page of all rows is one window."""
    if total is None:
        return FIRST_WINDOW
    oldest, newest = extent
    return max(FIRST_WINDOW, 2 * (newest - oldest) * (wanted / max(total.logs, 1)))


def _split(parameters: LogParameters, at: datetime, is_backwards: bool) -> tuple[LogParameters, LogParameters]:
    """The same list before and after `at`, the part that comes first in its order first."""
    older, newer = (parameters.model_copy(update=bound) for bound in ({"end_time": at}, {"start_time": at}))
    return (newer, older) if is_backwards else (older, newer)


def _read_by_windows(
    reader: Reader,
    parameters: LogParameters,
    cursor: Cursor | None,
    extent: Extent,
    width: timedelta,
    select: str,
) -> list[Row]:
    """A page by time, and one row more if there are more, from ever wider windows of time."""
    wanted = parameters.page_size + 1
    is_backwards = parameters.order_direction is OrderDirection.DESC
    oldest, newest = extent
    if cursor is not None:
        at = from_micros(cursor.timestamp_us)
        oldest, newest = (oldest, at) if is_backwards else (at, newest)
    rows: list[Row] = []
    # The outer bounds stay those that were asked for: rows may have arrived beyond the oldest and the newest.
    rest = parameters
    while True:
        is_last = width >= newest - oldest
        window = rest
        if not is_last:
            edge = newest - width if is_backwards else oldest + width
            window, rest = _split(rest, edge, is_backwards)
            oldest, newest = (oldest, edge) if is_backwards else (edge, newest)
        found = reader.query(*page_query(window, cursor, wanted - len(rows), select))
        rows += found
        if is_last or len(rows) == wanted:
            return rows
        still_wanted = wanted - len(rows)
        width *= min(WINDOW_GROWTH, 1 + 1.5 * still_wanted / len(found)) if found else WINDOW_GROWTH


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
    total, extent = _total_and_extent(reader, parameters, total)
    select, read = (SELECT_ROWS, read_payloads) if _reads_whole_rows(parameters, total) else (SELECT_KEYS, read_rows)
    wanted = parameters.page_size + 1
    if extent is None:
        found = reader.query(*page_query(parameters, cursor, wanted, select))
    else:
        found = _read_by_windows(reader, parameters, cursor, extent, _first_width(total, extent, wanted), select)
    page, has_more = found[: parameters.page_size], len(found) > parameters.page_size
    if total is None:
        total = count_rows(reader, parameters) if has_more else PageTotal(len(page), False)
    return LogPage(
        logs=[RequestLog(**fields_of(row)) for row in read(reader, page)],
        next_page_token=encode(query, _cursor_of(page[-1], parameters.order_by), total) if has_more else "",
        total_count=total.logs,
        total_count_is_approximate=total.is_approximate,
    )
