"""Ten questions of a finance person, answered by a client of the SDK with the tools alone, over two weeks of the demo's
traffic. Each answer is compared with a computation over the events themselves, priced by genai-prices' own arithmetic.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from itertools import chain
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx2
import pytest
from genai_prices import Usage, calc_price
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from api.app import create_app
from cli.adapters.price_list import BookPrices
from cli.demo.generator import draw, records
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from router_insights.emitter.event import RequestEvent
from tests.integration.ingest.test_sink import batch_of
from tests.support.api import KEY, filled_warehouse, settings
from tests.support.running_api import running_api

BERLIN = ZoneInfo("Europe/Berlin")
# Monday morning in Berlin.
NOW = datetime(2026, 11, 30, 8, 15, tzinfo=UTC)
LAST_WEEK = datetime(2026, 11, 23, tzinfo=BERLIN)
MONDAY, WEEK_BEFORE = LAST_WEEK + timedelta(days=7), LAST_WEEK - timedelta(days=7)
PICODOLLAR = Decimal("0.000000000001")
WEEK = {"period": "last_week", "timezone": "Europe/Berlin"}

Event = dict[str, Any]
Events = list[Event]


def cost_of(event: Event) -> Decimal | None:
    """By genai-prices alone; None where usage or price is not known."""
    if event.get("input_tokens") is None:
        return None
    usage = Usage(
        input_tokens=event["input_tokens"],
        cache_read_tokens=event.get("cached_input_tokens", 0),
        cache_write_tokens=event.get("cache_creation_input_tokens", 0),
        output_tokens=event["output_tokens"],
    )
    try:
        price = calc_price(
            usage, event["model_name"], provider_id=event["provider"], genai_request_timestamp=event["at"]
        )
    except LookupError:
        return None
    return price.total_price.quantize(PICODOLLAR, ROUND_HALF_UP)


def read(value: bytes) -> Event | None:
    """An event as it was sent, with `at` and `cost`; None for one of the broken records."""
    try:
        RequestEvent.model_validate_json(value)
    except ValidationError:
        return None
    event: Event = json.loads(value)
    event["at"] = datetime.fromisoformat(event["timestamp"])
    event["cost"] = cost_of(event)
    return event


class Desk(NamedTuple):
    """A running API over the traffic, and the events of it."""

    url: str
    events: Events

    def ask(self, tool: str, **arguments: Any) -> Any:
        """What the SDK's client reads of a tool's answer."""
        return asyncio.run(self._ask(tool, arguments))

    async def _ask(self, tool: str, arguments: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=120) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http)) as client,
        ):
            result = await client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        return result.structured_content

    def week(self, start: datetime = LAST_WEEK) -> Events:
        return [event for event in self.events if start <= event["at"] < start + timedelta(days=7)]


@pytest.fixture(scope="module")
def desk(engine_url: str) -> Iterator[Desk]:
    # More in the second week than in the first, and some on the morning after it.
    weeks = (draw(1, 900, WEEK_BEFORE.astimezone(UTC), LAST_WEEK.astimezone(UTC)),
             draw(2, 1_500, LAST_WEEK.astimezone(UTC), MONDAY.astimezone(UTC)),
             draw(3, 100, MONDAY.astimezone(UTC), NOW))  # fmt: skip
    values = [value for _, value in chain.from_iterable(map(records, weeks))]

    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # the parent promises a Then
            return NOW

    with (
        pytest.MonkeyPatch.context() as patch,
        filled_warehouse(engine_url, []) as warehouse,
    ):
        patch.setattr("api.mcp.protocol.datetime", Then)
        Sink(warehouse, PriceBook()).write(batch_of(*values))
        app = create_app(settings(), warehouse, None, None, BookPrices(None))
        with running_api(app) as url:
            yield Desk(url, [event for event in map(read, values) if event is not None])


def spent(events: Iterable[Event]) -> Decimal:
    return sum((event["cost"] for event in events if event["cost"] is not None), Decimal(0))


def without_cost(events: Iterable[Event]) -> int:
    return sum(event["cost"] is None for event in events)


def by(events: Iterable[Event], key: Callable[[Event], Any]) -> dict[Any, Events]:
    found: dict[Any, Events] = defaultdict(list)
    for event in events:
        found[key(event)].append(event)
    return found


def largest(groups: dict[Any, Events], of: Callable[[Events], Any]) -> list[Any]:
    return sorted(groups, key=lambda label: (-of(groups[label]), label))


def test_who_spent_most_on_claude_last_week_in_berlin_time_and_why_did_it_rise(desk: Desk) -> None:
    names = desk.ask("describe_data", values_of="engine", prefix="claude")["values"]
    claude = [event for event in desk.week() if event["model_name"].startswith("claude")]
    assert set(names) == set(by(claude, lambda event: event["model_name"]))
    filters = [{"field": "engine", "operator": "in", "value": names}]
    told = desk.ask("aggregate", metrics=["cost"], group_by=["user_id"], limit=1, filters=filters, **WEEK)
    users = by(claude, lambda event: event["user_id"])
    top = largest(users, spent)[0]
    [row] = told["rows"]
    assert (row["user_id"], Decimal(row["cost"]), row["requests"]) == (top, spent(users[top]), len(users[top]))
    assert row["requests_without_cost"] == without_cost(users[top])
    assert told["period"] == {"start": "2026-11-22T23:00:00.000000Z", "end": "2026-11-29T23:00:00.000000Z"}
    assert (told["timezone"], told["exactness"]) == ("Europe/Berlin", "exact")
    assert "by=user" in told["console"]

    theirs = [*filters, {"field": "user_id", "operator": "is", "value": top}]
    why = desk.ask("compare_periods", metric="cost", group_by=["engine"], filters=theirs, **WEEK)
    before = [
        event
        for event in desk.week(WEEK_BEFORE)
        if event["model_name"].startswith("claude") and event["user_id"] == top
    ]
    now = users[top]
    assert Decimal(why["total"]["before"]["cost"]) == spent(before)
    assert Decimal(why["total"]["change"]) == spent(now) - spent(before) > 0
    because = why["because"]
    assert because["requests"] == {"before": len(before), "now": len(now)}
    volume = spent(before) / len(before) * (len(now) - len(before))
    assert abs(Decimal(because["more_or_fewer_requests"]) - volume) < Decimal("1e-11")
    assert Decimal(because["more_or_fewer_requests"]) + Decimal(because["more_or_less_per_request"]) == Decimal(
        why["total"]["change"]
    )
    models = {
        name: tuple(spent(event for event in week if event["model_name"] == name) for week in (before, now))
        for name in names
    }
    told_models = {
        each["group"]: (Decimal(each["before"]), Decimal(each["now"])) for each in why["by"]["engine"]["groups"]
    }
    assert told_models == {name: costs for name, costs in models.items() if name in told_models}
    first = max(models, key=lambda name: abs(models[name][1] - models[name][0]))
    assert why["by"]["engine"]["groups"][0]["group"] == first


def test_what_did_we_spend_last_week_and_how_sure_is_it(desk: Desk) -> None:
    told = desk.ask("aggregate", metrics=["cost", "requests"], **WEEK)
    week = desk.week()
    assert told["total"] == {
        "requests": len(week),
        "cost": f"{spent(week):f}".rstrip("0"),
        "requests_without_cost": without_cost(week),
    }
    assert without_cost(week) > 0
    assert any("leaves out requests_without_cost" in note for note in told["notes"])
    newest = max(event["timestamp"] for event in desk.events)
    assert told["freshness"]["newest_request"] == newest


def test_how_did_it_spread_over_the_days_in_berlin(desk: Desk) -> None:
    told = desk.ask("aggregate", metrics=["cost"], group_by=["day"], **WEEK)
    days = by(desk.week(), lambda event: event["at"].astimezone(BERLIN).date().isoformat())
    assert [(row["day"], Decimal(row["cost"])) for row in told["rows"]] == [
        (day, spent(days[day])) for day in sorted(days)
    ]
    assert len(days) == 7


def test_which_team_should_pay_for_what(desk: Desk) -> None:
    assert set(desk.ask("describe_data", values_of="metadata.team")["values"]) == {
        event["metadata"]["team"] for event in desk.events
    }
    told = desk.ask("aggregate", metrics=["cost", "input_tokens"], group_by=["metadata.team"], **WEEK)
    teams = by(desk.week(), lambda event: event["metadata"]["team"])
    assert [(row["metadata.team"], Decimal(row["cost"]), row["input_tokens"]) for row in told["rows"]] == [
        (team, spent(teams[team]), sum(event.get("input_tokens", 0) for event in teams[team]))
        for team in largest(teams, spent)
    ]
    assert sum(Decimal(row["cost"]) for row in told["rows"]) == Decimal(told["total"]["cost"])


def test_what_was_the_dearest_request_and_why_did_it_cost_that(desk: Desk) -> None:
    [found] = desk.ask("find_requests", sort_by="cost", limit=1, **WEEK)["requests"]
    dearest = max((event for event in desk.week() if event["cost"] is not None), key=lambda event: event["cost"])
    assert (found["request_id"], Decimal(found["cost"])) == (dearest["request_id"], dearest["cost"])
    why = desk.ask("explain_request", request_id=found["request_id"])["request"]["cost_explanation"]
    charges = [Decimal(each["quantity"]) * Decimal(each["usd"]) / each["per"] for each in why["charges"]]
    assert sum(charges) + Decimal(why["rounding_usd"]) == dearest["cost"] == Decimal(why["cost"])
    assert sum(Decimal(each["quantity"]) for each in why["charges"]) == (
        dearest["input_tokens"] + dearest["output_tokens"]
    )


def test_which_model_is_dearest_per_request(desk: Desk) -> None:
    told = desk.ask("aggregate", metrics=["avg:cost", "cost"], group_by=["engine"], limit=50, **WEEK)
    models = by(desk.week(), lambda event: event["model_name"])
    averages = {
        name: float(spent(events)) / (len(events) - without_cost(events))
        for name, events in models.items()
        if without_cost(events) < len(events)
    }
    assert told["rows"][0]["engine"] == max(averages, key=lambda name: averages[name])
    known = {row["engine"]: row["avg:cost"] for row in told["rows"] if row["avg:cost"] is not None}
    assert known == pytest.approx(averages)
    # A model without a price has no average, and is not the cheapest.
    assert [row["engine"] for row in told["rows"] if row["avg:cost"] is None] == ["acme-summarizer-13b"]


def test_how_much_of_the_input_came_from_caches(desk: Desk) -> None:
    told = desk.ask("aggregate", metrics=["cached_tokens", "input_tokens"], group_by=["provider_type"], **WEEK)
    providers = by(desk.week(), lambda event: event["provider"])
    expected = {
        name: tuple(sum(event.get(field, 0) for event in events) for field in ("cached_input_tokens", "input_tokens"))
        for name, events in providers.items()
    }
    assert {row["provider_type"]: (row["cached_tokens"], row["input_tokens"]) for row in told["rows"]} == expected


def test_did_more_requests_fail_than_the_week_before_and_of_what(desk: Desk) -> None:
    told = desk.ask("compare_periods", metric="errors", group_by=["error_type"], limit=20, **WEEK)

    def failed(start: datetime) -> Events:
        return [event for event in desk.week(start) if event["status"] != "success"]

    before, now = failed(WEEK_BEFORE), failed(LAST_WEEK)
    assert (told["total"]["before"]["errors"], told["total"]["now"]["errors"]) == (len(before), len(now))
    kinds = {event["error_type"] for event in (*before, *now)}
    assert {each["group"]: (each["before"], each["now"]) for each in told["by"]["error_type"]["groups"]} == {
        kind: tuple(sum(event["error_type"] == kind for event in week) for week in (before, now)) for kind in kinds
    }


def test_what_would_ten_million_more_output_tokens_of_the_dearest_model_cost(desk: Desk) -> None:
    told = desk.ask("model_prices", model="anthropic/claude-opus-5-5")
    price = calc_price(
        Usage(input_tokens=0, output_tokens=10_000_000), "claude-opus-5-5", provider_id="anthropic",
        genai_request_timestamp=NOW,
    )  # fmt: skip
    assert Decimal(told["prices"][0]["output_usd"]) * 10 == price.total_price > 0
    assert told["at"] == "2026-11-30T08:15:00.000000Z"


def test_whose_requests_have_no_known_cost_and_whose_work_is_that(desk: Desk) -> None:
    metrics = ["unpriced", "missing_usage", "failed_without_usage"]
    told = desk.ask("aggregate", metrics=metrics, group_by=["engine"], limit=50, **WEEK)

    def counts(events: Events) -> tuple[int, int, int]:
        unknown = [event for event in events if event["cost"] is None]
        used = [event for event in unknown if event.get("input_tokens") is not None]
        failed = [event for event in unknown if event not in used and event["status"] != "success"]
        return len(used), len(unknown) - len(used) - len(failed), len(failed)

    models = by(desk.week(), lambda event: event["model_name"])
    assert {row["engine"]: tuple(row[name] for name in metrics) for row in told["rows"]} == {
        name: counts(events) for name, events in models.items()
    }
    assert told["rows"][0]["engine"] == largest(models, lambda events: counts(events)[0])[0] == "acme-summarizer-13b"
    filters = [{"field": "cost", "operator": "is_null"}]
    users = desk.ask("aggregate", metrics=["requests"], group_by=["user_id"], filters=filters, limit=50, **WEEK)
    theirs = by((event for event in desk.week() if event["cost"] is None), lambda event: event["user_id"])
    assert [(row["user_id"], row["requests"]) for row in users["rows"]] == [
        (user, len(theirs[user])) for user in largest(theirs, len)[:50]
    ]
