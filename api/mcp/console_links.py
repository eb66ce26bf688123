"""Addresses of the console's pages: everything that changes what is seen is in them.

`/explore?from=2026-11-15T23:00:00Z&to=...&tz=Europe/Berlin&by=user&f=model:gpt-5,gpt-4o&f=status!:success`
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode

from aggregator.times import Span
from api.analytics.filters.tree import Filter
from api.wire_types import rfc3339


class ConsolePage(StrEnum):
    EXPLORE = "explore"
    REQUESTS = "requests"
    SPEND = "spend"
    BUDGETS = "budgets"
    PRICES = "prices"


# Shorter than in the filter language, as people type them.
NAMES = {"engine": "model", "provider_type": "provider", "user_id": "user", "api_key_id": "key", "error_type": "error"}
SIGNS = {"is": ":", "in": ":", "eq": ":", "is_not": "!:", "not_in": "!:", "neq": "!:", "gt": ">", "lt": "<"}
READABLE = "/:,!<>."


def page_address(page: ConsolePage, *parts: str, **parameters: Any) -> str:
    """The path and query of a page. `parts` are further parts of its path. A list is given as often as it has items;
    what is None or empty is left out."""
    path = "/".join(["", page.value, *(quote(part, safe="") for part in parts)])
    given = {name.rstrip("_"): value for name, value in parameters.items() if value}
    query = urlencode(given, doseq=True, safe=READABLE, quote_via=quote)
    return f"{path}?{query}" if query else path


def of_requests(page: ConsolePage, span: Span, timezone: str, filters: Iterable[Filter], **more: Any) -> str:
    """The page about the requests of a span that pass the filters."""
    times = {"from_": span.start and rfc3339(span.start, "auto"), "to": span.end and rfc3339(span.end, "auto")}
    return page_address(page, **times, tz=timezone, f=list(_chips(filters)), **more)


def short_name(field: str) -> str:
    return NAMES.get(field, field)


def _chips(filters: Iterable[Filter]) -> Iterator[str]:
    for each in filters:
        name = short_name(each.field) if each.nested_key is None else f"{each.field}.{each.nested_key}"
        values = each.value if isinstance(each.value, list) else [] if each.value is None else [each.value]
        sign = SIGNS.get(each.operator, f":{each.operator}:")
        yield f"{name}{sign}{','.join(map(str, values))}"
