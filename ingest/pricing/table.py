"""The prices of one batch as columns: the rows to join with, and the numbers to multiply by."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.pricing.book import Cell, PriceBook, PriceKey
from ingest.pricing.offer import BUCKETS, Rates, Tier

Integers = npt.NDArray[np.int64]

MILLION = 10**6
# Row 0 of every table: what an event gets that no price matches.
UNPRICED = Cell(0, 0, 0, 0, Tier(0, 0, Rates(Decimal(0), Decimal(0), Decimal(0), Decimal(0)), ""), Decimal(0))


@dataclass(frozen=True)
class RateColumn:
    """Dollars per token, row by row, as whole numbers of 10^-12, 10^-18 and 10^-24 dollars."""

    pico: Integers
    atto: Integers
    yocto: Integers

    @classmethod
    def of(cls, per_million: Iterable[Decimal]) -> "RateColumn":
        """From dollars per million tokens with at most 18 decimals."""
        yoctos = [int(rate.scaleb(18)) for rate in per_million]
        return cls(
            _integers(yocto // MILLION**2 for yocto in yoctos),
            _integers(yocto // MILLION % MILLION for yocto in yoctos),
            _integers(yocto % MILLION for yocto in yoctos),
        )

    def charge(self, row: Integers, tokens: Integers) -> Integers:
        """tokens x rate in picodollars, rounded half up. What is below an attodollar cannot change the result."""
        attos: Integers = tokens * self.atto[row] + tokens * self.yocto[row] // MILLION
        picos: Integers = tokens * self.pico[row]
        return picos + (attos + MILLION // 2) // MILLION


@dataclass(frozen=True)
class PriceTable:
    """Row i of every column belongs to cell i; row 0 is the price of what has none.

    `cells`: Arrow table to join with. `rates`: a column per bucket. `per_request`: picodollars.
    `fee_factor`: 1 + fee rate, in millionths. `price_ids`: Arrow strings.
    """

    cells: pa.Table
    rates: dict[str, RateColumn]
    per_request: Integers
    fee_factor: Integers
    price_ids: pa.Array


def _integers(values: Iterable[int]) -> Integers:
    return np.fromiter(values, dtype=np.int64)


def price_table(book: PriceBook, keys: Iterable[PriceKey]) -> PriceTable:
    """The cells of `keys`, each key once."""
    rows = [(PriceKey("", ""), UNPRICED), *((key, cell) for key in keys for cell in book.cells(key))]
    tiers = [cell.tier for _, cell in rows]
    return PriceTable(
        cells=_cell_columns(rows),
        rates={bucket: RateColumn.of(getattr(tier.rates, bucket) for tier in tiers) for bucket in BUCKETS},
        per_request=_integers(int(tier.rates.per_request.scaleb(12)) for tier in tiers),
        fee_factor=_integers(MILLION + int(cell.fee_rate.scaleb(6)) for _, cell in rows),
        price_ids=pa.array([tier.price_id for tier in tiers], pa.string()),
    )


def _cell_columns(rows: list[tuple[PriceKey, Cell]]) -> pa.Table:
    columns = {name: pa.array([key[i] for key, _ in rows], pa.string()) for i, name in enumerate(PriceKey._fields)}
    columns["cell"] = pa.array(range(len(rows)), pa.int64())
    for name in ("since_us", "until_us", "day_from_us", "day_until_us"):
        columns[name] = pa.array([getattr(cell, name) for _, cell in rows], pa.int64())
    for name in ("above", "up_to"):
        columns[name] = pa.array([getattr(cell.tier, name) for _, cell in rows], pa.int64())
    return pa.table(columns)
