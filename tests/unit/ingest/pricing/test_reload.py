"""Prices change while a worker runs: a good file is taken over, a broken one changes nothing and is counted."""

import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ingest.consumer.worker import Worker
from ingest.pricing import PriceFileError, PriceKey, ReloadingPriceBook, reload
from ingest.settings import IngestSettings


def write(path: Path, text: str, seconds: int) -> None:
    """A file whose time of change is told apart from the one before, however coarse the clock."""
    path.write_text(text)
    os.utime(path, (seconds, seconds))


def input_rate(prices: ReloadingPriceBook) -> str:
    [row] = prices.current().price_rows(PriceKey("", "mine"))
    return row.tier.price_id.split()[1]


def errors() -> float:
    return REGISTRY.get_sample_value("insights_price_file_errors_total") or 0.0


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reload, "CHECK_SECONDS", 0.0)
    path = tmp_path / "prices.yaml"
    write(path, "prices: [{model: mine, input: 1, output: 1}]", 1)
    return path


def test_a_changed_file_is_in_force_without_a_restart(path: Path) -> None:
    prices = ReloadingPriceBook(path)
    before = prices.current()
    assert input_rate(prices) == "input=1"
    assert prices.current() is before
    write(path, "prices: [{model: mine, input: 2, output: 1}]", 2)
    assert input_rate(prices) == "input=2"


@pytest.mark.parametrize("text", ["prices: [{model: mine, inptu: 3}]", "", "prices: [", None])
def test_a_broken_file_leaves_the_old_prices_in_force_and_is_counted_once(path: Path, text: str | None) -> None:
    prices, before = ReloadingPriceBook(path), errors()
    path.unlink() if text is None else write(path, text, 2)
    assert [input_rate(prices), input_rate(prices)] == ["input=1", "input=1"]
    assert errors() == before + 1
    write(path, "prices: [{model: mine, input: 4, output: 1}]", 3)
    assert input_rate(prices) == "input=4"


def test_the_file_is_not_looked_at_before_its_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "CHECK_SECONDS", 3600.0)
    prices = ReloadingPriceBook(path)
    write(path, "prices: [{model: mine, input: 2, output: 1}]", 2)
    assert input_rate(prices) == "input=1"


def test_a_broken_file_stops_the_start_with_its_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "prices:\n  - {model: mine, inptu: 1}", 2)
    monkeypatch.setenv("INSIGHTS_PRICES_FILE", str(path))
    with pytest.raises(PriceFileError, match=r"prices.yaml line 2: prices\.0\.inptu: is not known here"):
        Worker(IngestSettings(), warehouse=None)  # type: ignore[arg-type]
