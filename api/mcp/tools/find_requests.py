"""The tool `find_requests`: requests by filters and words, newest, dearest or slowest first."""

from typing import Annotated, Any

from pydantic import Field, StrictInt, StrictStr

from api.analytics.request import SortBy, SortOrder
from api.analytics.search.answer import found_rows
from api.analytics.search.request import MAX_PER_PAGE, SearchQuery
from api.mcp.arguments import RequestArguments
from api.mcp.console_links import ConsolePage, of_requests
from api.mcp.context import ToolAnswer, ToolContext
from api.mcp.metrics import written
from api.request_rows import Row
from api.wire_types import rfc3339

SHOWN = (
    "request_id", "provider", "model_name", "user_id", "api_key_id", "status", "error_type", "input_tokens",
    "output_tokens", "cost", "duration_ms", "session_id", "tags",
)  # fmt: skip


class FindArguments(RequestArguments):
    words: StrictStr | None = Field(
        None, description="Words that the prompt or the answer has; beginnings and typos match."
    )
    sort_by: SortBy | None = Field(None, description="By default the closest match, then the newest.")
    sort_order: SortOrder = SortOrder.DESC
    limit: Annotated[StrictInt, Field(ge=1, le=MAX_PER_PAGE)] = 10
    page: Annotated[StrictInt, Field(ge=1)] = 1


def answer_find(context: ToolContext, asked: FindArguments) -> ToolAnswer:
    span = asked.span(context)
    query = asked.query(span, asked.words)
    context.admit(query)
    if not (query.q and not query.q.isspace()):
        context.count("search")
    search = SearchQuery(
        filter_group=query.filter_group,
        q=query.q,
        sort_by=asked.sort_by,
        sort_order=asked.sort_order if asked.sort_by else None,
        page=asked.page,
        per_page=asked.limit,
    )
    total, rows = found_rows(context.reader, search)
    content = {
        "found": total.found,
        "found_is_exact": total.is_exact,
        "page": asked.page,
        "requests": [_shown(row) for row in rows],
        "how": {"computed": f"requests {asked.described(span)}", "read_from": "request_logs"},
    }
    console = of_requests(ConsolePage.REQUESTS, span, asked.timezone, asked.filters, q=asked.words, sort=asked.sort_by)
    exactness = "exact" if total.is_exact else "there are at least `found` requests; each is exact"
    return ToolAnswer(content, console, exactness, span, asked.timezone)


def _shown(row: Row) -> dict[str, Any]:
    """What is known of a request, in brief. Text that is absent is left out; null is not known."""
    values = {name: written(row[name]) for name in SHOWN}
    return {"timestamp": rfc3339(row["timestamp"])} | {k: v for k, v in values.items() if v not in ("", [])}
