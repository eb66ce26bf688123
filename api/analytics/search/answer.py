"""A page of a search: what is found becomes short items in an envelope of page numbers."""

import json
import re
from datetime import UTC, timedelta

from aggregator.clickhouse.tables import KEY_COLUMNS
from api.analytics.search.find import find
from api.analytics.search.request import SearchQuery
from api.analytics.search.schemas import FoundRequest, SearchAnswer
from api.analytics.search.search_sql import SearchTotal, search_of
from api.request_rows import OF_KEYS, Row, rows_by_key
from api.security.reader import Reader

# What every JSON reader takes for the same number.
LARGEST_NUMBER = 2**53 - 1
COLUMNS = {
    "engine": "model_name",
    "provider_type": "provider",
    "price": "cost",
    "tags_array": "tags",
}
PLAIN = (
    "input_tokens", "output_tokens", "status", "error_type", "prompt_id", "prompt_version_number", "user_id",
    "api_key_id", "session_id", "trace_id", "turn_count", "tool_call_count", "tool_names", "prompt_name",
)  # fmt: skip
READ = f"""
SELECT {", ".join(KEY_COLUMNS)}, {", ".join((*COLUMNS.values(), *PLAIN))}, duration_ms,
    toJSONString(request_logs.metadata) AS metadata
FROM request_logs {OF_KEYS}
"""


def public_id(request_id: str) -> int | str:
    """An integer where the text is how that integer is written."""
    if not re.fullmatch("0|[1-9][0-9]{0,15}", request_id):
        return request_id
    number = int(request_id)
    return number if number <= LARGEST_NUMBER else request_id


def _item(row: Row, with_prompt_name: bool) -> FoundRequest:
    fields = {name: row[name] for name in PLAIN} | {name: row[column] for name, column in COLUMNS.items()}
    started, duration_ms, metadata = (
        row["timestamp"].replace(tzinfo=UTC),
        row["duration_ms"],
        json.loads(row["metadata"]),
    )
    fields |= {
        "id": public_id(row["request_id"]),
        "request_start_time": started,
        "request_end_time": None if duration_ms is None else started + timedelta(milliseconds=duration_ms),
        "latency": None if duration_ms is None else duration_ms / 1000,
        "metadata": [metadata] if metadata else [],
        "scores": [],
    }
    prompt_name = fields.pop("prompt_name")
    if with_prompt_name:
        fields["prompt_name"] = prompt_name or None
    return FoundRequest(**fields)


def found_rows(reader: Reader, query: SearchQuery) -> tuple[SearchTotal, list[Row]]:
    """How many requests are found, and the rows of the page: the columns that READ names. Raises as answer_search."""
    search = search_of(reader, query)
    total, keys = find(reader, search, query.limit, (query.number - 1) * query.limit)
    return total, rows_by_key(reader, READ, keys)


def answer_search(reader: Reader, query: SearchQuery) -> SearchAnswer:
    """Raises ApiError 400 for words or a filter that cannot be looked for."""
    total, rows = found_rows(reader, query)
    return _envelope(query, total, [_item(row, bool(query.include_prompt_name)) for row in rows])


def _envelope(query: SearchQuery, total: SearchTotal, items: list[FoundRequest]) -> SearchAnswer:
    number, pages = query.number, -(-total.found // query.limit)
    return SearchAnswer(
        success=True,
        items=items,
        page=number,
        pages=pages,
        per_page=query.limit,
        total=total.found,
        total_is_approximate=not total.is_exact,
        has_next=number < pages,
        has_prev=number > 1,
        next_num=number + 1 if number < pages else None,
        prev_num=number - 1 if number > 1 else None,
    )
