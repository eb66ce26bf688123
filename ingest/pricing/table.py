"""The prices of one batch: the rows to join with, and the numbers to multiply by."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.pricing.book import PriceBook, PriceKey
from ingest.pricing.cell import BOUNDS, COLUMNS, MILLION, Cell
from ingest.pricing.offer import Rates, Tier

Integers = npt.NDArray[np.int64]

FREE = Rates(Decimal(0), Decimal(0), Decimal(0), Decimal(0))
# Row 0 of every table: what an event gets that no price matches.
UNPRICED = Cell(0, 0, 0, 0, Tier(0, 0, FREE, price_id=""), fee_rate=Decimal(0))


@dataclass(frozen=True)
class PriceTable:
    """Row i of everything belongs to cell i: the Arrow table `cells` to join with, the columns of numbers
    (cell.py says in what units) and the Arrow strings `price_ids`. Row 0 is for what has no price."""

    cells: pa.Table
    numbers: dict[str, Integers]
    price_ids: pa.Array

    def charge(self, bucket: str, cell: Integers, tokens: Integers) -> Integers:
        """tokens x price in picodollars, rounded half up. What is below 10^-18 dollars cannot change that."""
        pico, atto, yocto = (self.numbers[f"{bucket}_{unit}"][cell] for unit in ("pico", "atto", "yocto"))
        attos: Integers = tokens * atto + tokens * yocto // MILLION
        return tokens * pico + (attos + MILLION // 2) // MILLION


def price_table(book: PriceBook, keys: Iterable[PriceKey]) -> PriceTable:
    """The cells of `keys`, each key once."""
    priced = list(keys)
    found = [(UNPRICED,), *map(book.cells, priced)]
    cells = list(chain.from_iterable(found))
    matrix = np.array([cell.numbers for cell in cells], dtype=np.int64)
    numbers = dict(zip(COLUMNS, np.ascontiguousarray(matrix.T), strict=True))
    owners = np.repeat(np.arange(len(found)), [len(each) for each in found])
    columns = {"cell": np.arange(len(cells)), **{name: numbers[name] for name in BOUNDS}}
    names = zip(PriceKey._fields, zip(PriceKey("", ""), *priced, strict=True), strict=True)
    return PriceTable(
        cells=pa.table(columns | {name: pa.array(texts, pa.string()).take(owners) for name, texts in names}),
        numbers=numbers,
        price_ids=pa.array([cell.tier.price_id for cell in cells], pa.string()),
    )
