"""The prices that one batch needs: where each holds, and the numbers to multiply by."""

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
# Row 0 of every table: for events that no price matches.
UNPRICED = PriceRow(0, 0, 0, 0, Tier(0, 0, FREE, price_id=""), fee_rate=Decimal(0))


@dataclass(frozen=True)
class PriceTable:
    """Row i of everything is price row i: the columns of numbers (price_row.py says in what units) and the Arrow
    strings `price_ids`. Row 0 is for events without a price. The rows of the key at place k are the `counts[k]` from
    `firsts[k]` on."""

    numbers: dict[str, Integers]
    price_ids: pa.Array
    firsts: Integers
    counts: Integers

    def charge(self, bucket: str, row: Integers, tokens: Integers) -> Integers:
        """tokens x price in picodollars, rounded half up. What is below 10^-18 dollars cannot change that."""
        pico, atto, yocto = (self.numbers[f"{bucket}_{unit}"][row] for unit in ("pico", "atto", "yocto"))
        attos: Integers = tokens * atto + tokens * yocto // MILLION
        return tokens * pico + (attos + MILLION // 2) // MILLION


def price_table(book: PriceBook, keys: Sequence[PriceKey]) -> PriceTable:
    """The price rows of `keys`, in their order."""
    found = [(UNPRICED,), *map(book.price_rows, keys)]
    rows = list(chain.from_iterable(found))
    matrix = np.array([row.numbers for row in rows], dtype=np.int64)
    counts = np.array([len(each) for each in found], dtype=np.int64)
    return PriceTable(
        numbers=dict(zip(COLUMNS, np.ascontiguousarray(matrix.T), strict=True)),
        price_ids=pa.array([row.tier.price_id for row in rows], pa.string()),
        firsts=np.cumsum(counts)[:-1],
        counts=counts[1:],
    )
