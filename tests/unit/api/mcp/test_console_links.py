"""Addresses of the console's pages are short, readable, and say all that is seen."""

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from aggregator.times import Span
from api.analytics.filters.tree import Filter
from api.mcp.console_links import ConsolePage, of_requests, page_address

SPAN = Span(datetime(2026, 11, 15, 23, tzinfo=UTC), datetime(2026, 11, 22, 23, tzinfo=UTC))


def test_an_address_reads_like_the_question() -> None:
    filters = [
        Filter(field="engine", operator="in", value=["gpt-5", "gpt-4o"]),
        Filter(field="status", operator="is_not", value="success"),
        Filter(field="cost", operator="gt", value=0.5),
        Filter(field="metadata", operator="key_equals", nested_key="team", value="search"),
        Filter(field="cost", operator="is_null"),
    ]
    address = of_requests(ConsolePage.EXPLORE, SPAN, "Europe/Berlin", filters, by="user", q=None)
    assert address == (
        "/explore?from=2026-11-15T23:00:00Z&to=2026-11-22T23:00:00Z&tz=Europe/Berlin&f=model:gpt-5,gpt-4o"
        "&f=status!:success&f=cost>0.5&f=metadata.team:key_equals:search&f=cost:is_null:&by=user"
    )


def test_whatever_a_name_holds_stays_one_value() -> None:
    name = "a b&c=d#e%20+/ü😀\n"
    filters = [Filter(field="user_id", operator="is", value=name)]
    address = of_requests(ConsolePage.SPEND, SPAN, "UTC", filters)
    assert parse_qs(urlsplit(address).query)["f"] == [f"user:{name}"]
    assert urlsplit(address).fragment == ""
    assert page_address(ConsolePage.REQUESTS, "a/b?c d") == "/requests/a%2Fb%3Fc%20d"
    assert page_address(ConsolePage.BUDGETS, budget=None) == "/budgets"
