"""`insights prices` and `insights reprice`: what they print, and that mistakes become sentences."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aggregator.clickhouse.client import Warehouse
from aggregator.rollups import rebuild
from cli.errors import sentence_for
from cli.main import app
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from tests.integration.ingest.test_sink import batch_of, encode


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(rebuild, "SETTLE_SECONDS", 0.0)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def output_of(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, result.exception
    return " ".join(result.output.split())


def refusal_of(*arguments: str) -> str:
    """The sentence that ends the command."""
    error = run(*arguments).exception
    assert isinstance(error, Exception)
    return sentence_for(error) or repr(error)


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text("prices: [{model: mine, input: 3, output: 5}]\nfees: [{rate: 0.1}]")
    monkeypatch.setenv("INSIGHTS_PRICES_FILE", str(path))
    return path


def test_a_price_is_shown_tier_by_tier() -> None:
    shown = output_of("prices", "show", "google/gemini-2.5-pro", "--at", "2026-01-31")
    assert "any 1.25 0.125 1.25 10" in shown
    assert "200,000 2.5 0.25 2.5 15" in shown


def test_models_are_listed_by_a_part_of_their_name() -> None:
    assert "openai/gpt-5-mini 0.25 0.025 0.25 2" in output_of("prices", "list", "gpt-5-mini")
    assert "no model of the catalogue" in output_of("prices", "list", "unheard of")


def test_a_request_that_was_never_made_is_explained(prices: Path) -> None:
    shown = output_of("prices", "explain", "mine", "--input", "1000000", "--output", "1000000")
    assert "operator:*/mine" in shown
    assert "before fee 8.000000000000 fee 10% 0.800000000000 cost 8.800000000000" in shown


def test_units_that_are_not_tokens_are_explained_too() -> None:
    shown = output_of("prices", "explain", "claude-sonnet-4-5", "--input", "10", "--usage", '{"web_searches": 2}')
    assert "other: web_searches 2 10 1,000 0.02" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["show", "unheard-of"], "no price per token is known for unheard-of", id="show"),
        pytest.param(["explain", "unheard-of"], "no price is known for this model", id="explain"),
        pytest.param(["explain", "gpt-4o", "--cached-input", "5"], "input_tokens (0) must include", id="counts"),
        pytest.param(["explain", "gpt-4o", "--usage", "{"], "--usage is not JSON", id="usage"),
        pytest.param(["explain", "gpt-4o", "--usage", '{"x": -1}'], "usage.x", id="negative usage"),
    ],
)
def test_a_question_without_an_answer_is_refused_with_a_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in refusal_of("prices", *arguments)


def test_a_file_is_checked_with_its_lines(prices: Path) -> None:
    assert "is right" in output_of("prices", "check", str(prices))
    prices.write_text("prices:\n  - {model: mine, inptu: 3}\n")
    assert "line 2: prices.0.inptu: is not known here" in refusal_of("prices", "check", str(prices))
    assert "line 2" in refusal_of("prices", "show", "gpt-4o")


def test_stored_rows_are_repriced_and_explained(
    warehouse: Warehouse, engine_url: str, prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sink(warehouse, PriceBook()).write(batch_of(encode(request_id="r", model_name="mine", input_tokens=1_000_000)))
    monkeypatch.setattr("cli.adapters.clickhouse.open_warehouse", lambda url: warehouse)
    assert "no price is known" in refusal_of("prices", "explain", "--request", "r")
    span = ("--from", "2026-11-01", "--to", "2026-12-01")
    dry = output_of("reprice", *span, "--dry-run")
    assert "mine 1 1 0 3.3 +3.3 1 → 0" in dry
    assert "would change 1 rows" in dry
    assert "changed 1 rows" in output_of("reprice", *span)
    assert "cost 3.300000000000" in output_of("prices", "explain", "--request", "r")
    assert "changed 0 rows" in output_of("reprice", *span, "--model", "mine")
