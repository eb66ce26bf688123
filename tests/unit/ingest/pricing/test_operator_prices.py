"""The operator's file: its prices go before the catalogue's, the most specific first, and a broken file says
where it is broken."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingest.pricing import PriceBook, PriceFileError, PriceKey, load
from ingest.pricing.operator_file import parse
from tests.support.checkout import ROOT
from tests.unit.ingest.pricing.test_rating import COSTS, event, price

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def book(text: str) -> PriceBook:
    return PriceBook(parse(text, "prices.yaml"))


def million(model_name: str = "gpt-4o", **fields: Any) -> dict[str, Any]:
    """An event whose input cost is the price of a million tokens."""
    return event(model_name, input_tokens=1_000_000, **fields)


def costs(events: list[dict[str, Any]], text: str) -> list[Decimal | None]:
    return [row["cost"] for row in price(events, book(text))]


def test_an_entry_overrides_the_catalogue() -> None:
    text = "prices: [{provider: openai, model: gpt-4o, input: 1.1, output: 2}]"
    assert costs([million(), million("gpt-4o-mini")], text) == [Decimal("1.1"), Decimal("0.15")]


def test_an_entry_gives_a_price_to_what_the_catalogue_does_not_know() -> None:
    text = "prices: [{provider: my-vllm, model: llama-*, input: 0.000000000001, output: 0}]"
    events = [million("llama-70b", provider="my-vllm"), million("My-vLLM/Llama-70b"), million("llama-70b")]
    assert costs(events, text) == [Decimal("1e-12"), Decimal("1e-12"), None]


def test_a_price_of_zero_is_free_and_not_unpriced() -> None:
    row = price([million("my-model")], book("prices: [{model: my-model, input: 0, output: 0}]"))[0]
    assert row["cost"] == 0
    assert row["price_id"].startswith("operator:*/my-model ")


@pytest.mark.parametrize("name", ["gpt-4o-2024-08-06", "gpt-4o", "OPENAI/GPT-4o-2024-08-06"])
def test_an_entry_is_found_by_the_name_as_written_and_by_the_model_it_means(name: str) -> None:
    resolved = "prices: [{provider: openai, model: gpt-4o, input: 7, output: 7}]"
    pattern = "prices: [{provider: openai, model: gpt-4o*, input: 7, output: 7}]"
    assert costs([million(name)], resolved) == costs([million(name)], pattern) == [7]


def test_square_brackets_are_part_of_a_name() -> None:
    text = "prices: [{model: 'claude-x[1m]', input: 7, output: 7}]"
    assert costs([million("claude-x[1m]"), million("claude-x1")], text) == [7, None]


def test_the_most_specific_entry_counts() -> None:
    text = """
    prices:
      - {model: gpt-4o, input: 4, output: 0, api_key_id: k1}
      - {model: gpt-*, input: 3, output: 0, user_id: u1}
      - {provider: openai, model: gpt-4o, input: 2.5, output: 0}
      - {provider: open*, model: gpt-4o, input: 2.25, output: 0}
      - {model: gpt-4o, input: 2, output: 0, since: 2026-01-01}
      - {model: gpt-*, input: 1, output: 0}
      - {provider: openai, model: gpt-4*, input: 1.5, output: 0}
      - {model: gpt-4, input: 5, output: 0}
    """
    events = [
        million(),
        million("gpt-4o-mini"),
        million("gpt-4"),
        million(user_id="u1"),
        million(user_id="u1", api_key_id="k1"),
        million(user_id="u2", api_key_id="k1"),
        million(user_id="u2", api_key_id="k2"),
    ]
    assert costs(events, text) == [Decimal("2.5"), Decimal("1.5"), 5, 3, 4, 4, Decimal("2.5")]


def test_of_equally_specific_entries_the_last_to_start_counts_then_the_last_in_the_file() -> None:
    text = """
    prices:
      - {model: gpt-4o, input: 3, output: 0, since: 2026-01-01}
      - {model: gpt-4o, input: 1, output: 0}
      - {model: gpt-4o, input: 2, output: 0}
    """
    tick = timedelta(microseconds=1)
    assert costs([million(timestamp=NEW_YEAR - tick), million(timestamp=NEW_YEAR)], text) == [2, 3]


def test_after_its_end_an_entry_leaves_the_catalogue_s_price() -> None:
    text = "prices: [{model: gpt-4o, input: 1, output: 1, since: 2026-01-01, until: 2026-02-01}]"
    days = [NEW_YEAR, NEW_YEAR + timedelta(days=31, microseconds=-1), NEW_YEAR + timedelta(days=31)]
    assert costs([million(timestamp=day) for day in days], text) == [1, 1, Decimal("2.5")]


def test_a_negotiated_price_is_only_for_those_it_names() -> None:
    text = """
    prices:
      - {model: my-model, input: 1, output: 1, user_id: acme}
      - {model: other-model, input: 2, output: 2, user_id: acme, api_key_id: k1}
    """
    events = [
        million("my-model", user_id="acme"),
        million("my-model", user_id="someone"),
        million("other-model", user_id="acme", api_key_id="k1"),
        million("other-model", user_id="acme"),
        million("other-model", user_id="someone", api_key_id="k1"),
    ]
    assert costs(events, text) == [1, None, 2, None, None]


def test_tiers_and_the_price_of_a_request_apply() -> None:
    text = """
    prices:
      - model: my-model
        input: 1
        output: 0
        cached_input: 0.5
        per_request: 0.25
        tiers: [{above_input_tokens: 1000000, input: 2, output: 0}]
    """
    events = [
        million("my-model", cached_input_tokens=1_000_000),
        event("my-model", input_tokens=2_000_000, cached_input_tokens=2_000_000),
        event("my-model", input_tokens=0),
    ]
    assert costs(events, text) == [Decimal("0.75"), Decimal("4.25"), Decimal("0.25")]


def test_fees_are_dated_and_scoped_and_leave_the_price_before_fee_alone() -> None:
    text = """
    fees:
      - {rate: 0.05}
      - {rate: 0.10, since: 2026-01-01}
      - {rate: 0, user_id: internal}
      - {rate: -0.5, user_id: internal, api_key_id: k1}
    """
    events = [
        million(timestamp=NEW_YEAR - timedelta(microseconds=1)),
        million(timestamp=NEW_YEAR),
        million(user_id="internal"),
        million(user_id="internal", api_key_id="k1"),
        million("no-such-model"),
    ]
    rows = price(events, book(text))
    assert [row["cost"] for row in rows] == [Decimal("2.625"), Decimal("2.75"), Decimal("2.5"), Decimal("1.25"), None]
    assert [row["cost_before_fee"] for row in rows] == [Decimal("2.5")] * 4 + [None]
    assert [row["fee_rate"] for row in rows] == [Decimal("0.05"), Decimal("0.1"), 0, Decimal("-0.5"), 0]


def test_the_example_in_the_documentation_is_valid() -> None:
    text = (ROOT / "docs" / "pricing.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    assert costs([million("llama-70b", provider="my-vllm", user_id="internal")], example) == [0]


BROKEN = [
    pytest.param("prices:\n  - model: x\n    input: cheap\n    output: 1", "line 3: prices.0.input: ", id="no number"),
    pytest.param("prices:\n  - model: x\n    input: -1\n    output: 1", "line 3: prices.0.input: ", id="negative"),
    pytest.param("prices:\n  - model: x\n    input: .nan\n    output: 1", "line 3: prices.0.input: ", id="nan"),
    pytest.param("prices:\n  - model: x\n    input: 1e9\n    output: 1", "less than or equal to 1000", id="too dear"),
    pytest.param("prices:\n  - model: x\n    input: 1", "line 2: prices.0.output: Field required", id="missing"),
    pytest.param(
        "prices:\n  - {model: x, input: 1, output: 1,\n     inptu: 2}",
        "line 3: prices.0.inptu: is not known here; allowed are api_key_id, ",
        id="typo",
    ),
    pytest.param("prices:\n  - {model: x, input: 1,\n     input: 2}", "line 3: input is given twice", id="twice"),
    pytest.param("prices: []\nprices: []", "line 2: prices is given twice", id="section twice"),
    pytest.param("fees:\n\n  - rate: 40", "line 3: fees.0.rate: ", id="fee too high"),
    pytest.param("fees:\n  - rate: 0.1\n    user_id:", "line 3: fees.0.user_id: ", id="empty scope"),
    pytest.param("fees:\n  - {rate: 0.1, since: 2026-02-30}", "line 2: fees.0.since: ", id="no such day"),
    pytest.param(
        "fees:\n  - {rate: 0.1, since: 2026-02-02, until: 2026-02-02}", "line 2: fees.0: ", id="ends before it starts"
    ),
    pytest.param(
        "prices:\n  - model: x\n    input: 1\n    output: 1\n    tiers:\n"
        "      - {above_input_tokens: 5, input: 1, output: 1}\n      - {above_input_tokens: 5, input: 1, output: 1}",
        "line 5: prices.0.tiers: ",
        id="two tiers with one threshold",
    ),
    pytest.param("prices: {model: x}", "line 1: prices: Input should be a valid list", id="not a list"),
    pytest.param("- 1", "line 1: the file: must be a mapping of fees, prices", id="not a mapping"),
    pytest.param("prices:\n  - x", "line 2: prices.0: must be a mapping of api_key_id, ", id="an entry without fields"),
    pytest.param("prices: [", "line 1: ", id="not yaml"),
    pytest.param("prices:\n\t- 1", "line 2: ", id="tab"),
    pytest.param("prices: [\x00]", "not YAML", id="nul"),
    pytest.param("prices: &a [*a]", "line 1: an alias stands for this", id="holds itself"),
    pytest.param(
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 10}]\n" for n in range(1, 10)),
        "line 1: an alias stands for this",
        id="aliases of aliases",
    ),
    pytest.param("prices: " + "[" * 11 + "]" * 11, "too deep", id="deep"),
    pytest.param("prices: []\n---\nprices: []", "line 2: ", id="two documents"),
    pytest.param("", "is empty", id="empty"),
    pytest.param("# prices: []", "is empty", id="only a comment"),
]


@pytest.mark.parametrize(("text", "reason"), BROKEN)
def test_a_broken_file_is_refused_with_file_line_and_reason(text: str, reason: str) -> None:
    with pytest.raises(PriceFileError) as refused:
        parse(text, "prices.yaml")
    assert str(refused.value).startswith("prices.yaml")
    assert reason in str(refused.value)


def test_every_mistake_is_reported_at_once() -> None:
    text = "prices:\n  - {model: x, input: a, output: 1}\n  - {model: x, input: 1, output: b}\nfees: [{}]"
    with pytest.raises(PriceFileError) as refused:
        parse(text, "prices.yaml")
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "prices.yaml line 2",
        "prices.yaml line 3",
        "prices.yaml line 4",
    ]


def test_a_file_is_loaded_and_its_digest_is_in_the_version(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("prices: [{model: my-model, input: 1, output: 1}]")
    first = load(path)
    path.write_text("prices: [{model: my-model, input: 2, output: 2}]")
    second = load(path)
    rows = [price([million("my-model")], each)[0] for each in (first, second, PriceBook())]
    assert [row["cost"] for row in rows] == [1, 2, None]
    assert len({row["price_version"] for row in rows}) == 3
    assert all(row["price_version"].startswith("genai-prices ") for row in rows)


@pytest.mark.parametrize("content", [pytest.param(None, id="missing"), pytest.param(b"\xff\xfe", id="not UTF-8")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PriceFileError, match=r"prices\.yaml: cannot be read"):
        load(path)


def test_no_two_price_rows_of_a_key_overlap() -> None:
    text = """
    prices:
      - {model: deepseek*, input: 1, output: 1, since: 2026-08-20, until: 2026-09-01}
      - {model: deepseek*, input: 2, output: 1, since: 2026-08-25, user_id: u1}
    fees: [{rate: 0.1, since: 2026-08-21}]
    """
    rows = book(text).price_rows(PriceKey("deepseek", "deepseek-v4-flash", "u1"))
    assert len(rows) > 10
    for position, one in enumerate(rows):
        for other in rows[position + 1 :]:
            assert (
                one.until_us <= other.since_us
                or one.day_until_us <= other.day_from_us
                or one.tier.up_to <= other.tier.above
            )


def test_unpriced_rows_stay_unpriced_under_a_fee() -> None:
    row = price([million("no-such-model")], book("fees: [{rate: 0.1}]"))[0]
    assert all(row[name] is None for name in COSTS)
