"""The prices in force, for the API and for `insights prices`."""

import threading
from datetime import datetime
from pathlib import Path

from genai_prices.data import providers

from aggregator.times import micros
from api.mcp.price_list import ModelPrice, PricesUnavailableError
from ingest.pricing import PriceBook, PriceFileError, PriceKey, ReloadingPriceBook
from ingest.pricing.price_row import DAY_US, PriceRow


def price_key(name: str, **fields: str) -> PriceKey:
    """The key of `name`, which is provider/model or a model as gateways write it."""
    provider, slash, model = name.partition("/")
    known = slash and any(provider == each.id for each in providers)
    return PriceKey(provider, model, **fields) if known else PriceKey("", name, **fields)


def holds(row: PriceRow, at: datetime) -> bool:
    """Whether the price is in force at the moment."""
    at_us = micros(at)
    return row.since_us <= at_us < row.until_us and row.day_from_us <= at_us % DAY_US < row.day_until_us


class BookPrices:
    """What the API asks of a list of prices (`api.mcp.price_list.PriceList`). It reads the file at the first call, and
    again when it changes."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._opening = threading.Lock()
        self._book: PriceBook | ReloadingPriceBook | None = None

    def _current(self) -> PriceBook:
        """Raises PricesUnavailableError for a file that cannot be used."""
        with self._opening:
            if self._book is None:
                try:
                    self._book = ReloadingPriceBook(self._file) if self._file else PriceBook()
                except PriceFileError as error:
                    raise PricesUnavailableError("the operator's file has mistakes or is not there") from error
            return self._book.current()

    def prices_of(self, model: str, at: datetime, user_id: str, api_key_id: str) -> list[ModelPrice]:
        book = self._current()
        # A price book remembers what it is asked by key; it asks for these only where the file names them.
        key = price_key(
            model,
            user_id=user_id if user_id in book.user_ids else "",
            api_key_id=api_key_id if api_key_id in book.api_key_ids else "",
        )
        rows = (row for row in book.price_rows(key) if holds(row, at))
        return [
            ModelPrice(
                price=row.tier.price_id.split()[0],
                price_version=book.version,
                above=row.tier.above,
                rates={
                    "input": row.tier.rates.input,
                    "cached_input": row.tier.rates.cached_input,
                    "cache_creation_input": row.tier.rates.cache_creation_input,
                    "output": row.tier.rates.output,
                },
                usd_per_request=row.tier.rates.per_request,
                fee_rate=row.fee_rate,
            )
            for row in rows
        ]
