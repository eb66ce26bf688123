"""The prices of one batch: where each holds, and the numbers to multiply by."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.pricing.price_book import PriceBook, PriceKey
from ingest.pricing.price_row import COLUMNS, MILLION, PriceRow
from ingest.pricing.rate_card import Rates, Tier

Integers = npt.NDArray[np.int64]

FREE = Rates(Decimal(0), Decimal(0), Decimal(0), Decimal(0))
# Row 0 of every table: what an event gets that no price matches.
UNPRICED = PriceRow(0, 0, 0, 0, Tier(0, 0, FREE, price_id=""), fee_rate=Decimal(0))


@dataclass(frozen=True)
class PriceTable:
    """Row i of everything belongs to cell i: the columns of numbers (cell.py says in what units) and the Arrow
    strings `price_ids`. Row 0 is for what has no price. The cells of the key at place k are the `counts[k]` from
    `firsts[k]` on."""

    numbers: dict[str, Integers]
    price_ids: pa.Array
    firsts: Integers
    counts: Integers

    def charge(self, bucket: str, cell: Integers, tokens: Integers) -> Integers:
        """tokens x price in picodollars, rounded half up. What is below 10^-18 dollars cannot change that."""
        pico, atto, yocto = (self.numbers[f"{bucket}_{unit}"][cell] for unit in ("pico", "atto", "yocto"))
        attos: Integers = tokens * atto + tokens * yocto // MILLION
        return tokens * pico + (attos + MILLION // 2) // MILLION


def price_table(book: PriceBook, keys: Sequence[PriceKey]) -> PriceTable:
    """The cells of `keys`, in their order."""
    found = [(UNPRICED,), *map(book.cells, keys)]
    cells = list(chain.from_iterable(found))
    matrix = np.array([cell.numbers for cell in cells], dtype=np.int64)
    counts = np.array([len(each) for each in found], dtype=np.int64)
    return PriceTable(
        numbers=dict(zip(COLUMNS, np.ascontiguousarray(matrix.T), strict=True)),
        price_ids=pa.array([cell.tier.price_id for cell in cells], pa.string()),
        firsts=np.cumsum(counts)[:-1],
        counts=counts[1:],
    )
