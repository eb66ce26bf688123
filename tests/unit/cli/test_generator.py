"""The demo's traffic: the same for a seed, valid events all of them, and adding up to its own tally."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from genai_prices import Usage, calc_price
from pydantic import ValidationError

from cli.demo.generator import Expected, Record, Tally, Traffic, draw, expected, records
from cli.demo.profiles import MODELS, UNPRICED_MODEL, USERS, api_key_id, user_id
from router_insights.emitter.event import RequestEvent

START = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
END = START + timedelta(hours=24)
COUNT = 12_000


@cache
def traffic() -> Traffic:
    return draw(seed=11, count=COUNT, start=START, end=END)


@cache
def sent() -> tuple[Record, ...]:
    return tuple(records(traffic()))


def split(given: Iterable[Record]) -> tuple[list[RequestEvent], list[Record]]:
    """(the valid events, the records that are none)."""
    events, broken = [], []
    for record in given:
        try:
            events.append(RequestEvent.model_validate_json(record[1]))
        except ValidationError:
            broken.append(record)
    return events, broken


@cache
def events() -> tuple[RequestEvent, ...]:
    return tuple(split(sent())[0])


def tally(event: RequestEvent) -> Tally:
    unknown_price = event.model_name == MODELS[UNPRICED_MODEL].name
    return Tally(
        requests=1,
        errors=event.status != "success",
        unpriced=unknown_price and event.input_tokens is not None,
        missing_usage=event.input_tokens is None and event.status == "success",
        failed_without_usage=event.input_tokens is None and event.status != "success",
        input_tokens=event.input_tokens or 0,
        output_tokens=event.output_tokens or 0,
        cached_input_tokens=event.cached_input_tokens or 0,
    )


def grouped(field: str) -> dict[str, Tally]:
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events():
        sums[getattr(event, field)].update(tally(event)._asdict())
    return {key: Tally(**total) for key, total in sums.items()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    again = tuple(records(draw(seed=11, count=COUNT, start=START, end=END)))
    other = tuple(records(draw(seed=12, count=COUNT, start=START, end=END)))
    assert again == sent()
    assert not {key for key, _ in other if key.startswith(b"req-")} & {key for key, _ in sent()}


def test_every_request_is_a_valid_event_and_every_broken_record_is_not() -> None:
    valid, broken = split(sent())
    assert len(valid) == COUNT
    assert len(broken) == expected(traffic()).dead_letters == COUNT // 5_000
    assert all(key.startswith(b"broken-") for key, _ in broken)


def test_each_kind_of_broken_record_is_rejected() -> None:
    many = draw(seed=3, count=40_000, start=START, end=END)
    broken = [record for record in records(many) if record[0].startswith(b"broken-")]
    assert len(broken) == 8
    assert split(broken) == ([], broken)


def test_request_ids_are_unique_and_are_the_keys() -> None:
    assert [event.request_id.encode() for event in events()] == [
        key for key, _ in sent() if not key.startswith(b"broken-")
    ]
    assert len({event.request_id for event in events()}) == COUNT


@pytest.mark.parametrize(
    ("field", "group"),
    [
        ("model_name", "by_model"),
        ("user_id", "by_user"),
        ("api_key_id", "by_api_key"),
        ("status", "by_status"),
    ],
)
def test_the_tally_per_group_equals_the_sum_over_the_events(field: str, group: str) -> None:
    answer: Expected = expected(traffic())
    assert getattr(answer, group) == grouped(field)


def test_the_tally_per_hour_and_in_total_equals_the_sum_over_the_events() -> None:
    sums: dict[datetime, Counter[str]] = defaultdict(Counter)
    for event in events():
        sums[event.timestamp.replace(minute=0, second=0, microsecond=0)].update(tally(event)._asdict())
    answer = expected(traffic())
    assert answer.by_hour == {hour: Tally(**total) for hour, total in sums.items()}
    assert answer.total == Tally(*(sum(column) for column in zip(*answer.by_hour.values(), strict=True)))


def test_times_ascend_within_the_window_and_follow_the_day() -> None:
    times = [event.timestamp for event in events()]
    assert times[0] >= START
    assert times == sorted(times)
    assert times[-1] < END
    hours = Counter(moment.hour for moment in times)
    assert hours[15] > 3 * hours[4]


def test_every_model_but_the_unknown_one_has_a_public_price() -> None:
    for number, model in enumerate(MODELS):
        usage = Usage(input_tokens=1000, output_tokens=100)
        if number == UNPRICED_MODEL:
            with pytest.raises(LookupError):
                calc_price(usage, model.name, provider_id=model.provider)
        else:
            assert calc_price(usage, model.name, provider_id=model.provider).total_price > 0


def test_users_have_names_of_their_own_and_one_to_three_keys() -> None:
    assert len({user_id(user) for user in range(USERS)}) == USERS
    keys = defaultdict(set)
    for event in events():
        keys[event.user_id].add(event.api_key_id)
    assert {len(owned) for owned in keys.values()} == {1, 2, 3}
    assert api_key_id(7, 1) == "key-007-1"


def test_a_few_users_send_most_of_the_traffic() -> None:
    counts = sorted(Counter(event.user_id for event in events()).values(), reverse=True)
    assert sum(counts[:24]) > COUNT / 3


def test_cached_tokens_are_part_of_the_input_and_refused_requests_use_none() -> None:
    refused = [event for event in events() if event.status == "error"]
    timed_out = [event for event in events() if event.status == "timeout"]
    assert refused
    assert timed_out
    assert {(event.input_tokens, event.output_tokens) for event in refused} == {(0, 0)}
    assert {(event.input_tokens, event.output_tokens, event.duration_ms) for event in timed_out} == {
        (None, None, 60_000)
    }
    assert {event.error_type for event in refused} >= {"rate_limit_error", "upstream_error"}


def test_records_have_the_size_of_real_gateway_events_and_carry_a_secret_to_mask() -> None:
    sizes = sorted(len(value) for _, value in sent())
    assert 765 <= sizes[len(sizes) // 2] <= 900
    headers = events()[0].request_headers or {}
    assert str(headers["authorization"]).startswith("Bearer ak-")
