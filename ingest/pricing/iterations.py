"""Splits rows into one for each iteration of a request, and sums the costs of the iterations."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aggregator.iterations import PREFIX, ROW_COLUMNS, iteration_rows, join_price_ids
from ingest.pricing.price_table import Integers

Truths = npt.NDArray[np.bool_]

# A row whose iterations contradict it: nothing is reported, so nothing is priced.
CONTRADICTION: dict[str, Any] = dict.fromkeys(ROW_COLUMNS) | {"usage": ""}


class IterationRows(NamedTuple):
    """`events` by iteration, and where each row of the batch begins in them."""

    events: pa.Table
    starts: Integers

    @property
    def is_plain(self) -> bool:
        """Whether every row is answered in one iteration."""
        return len(self.starts) == len(self.events)

    def sum(self, amounts: Integers) -> Integers:
        total: Integers = amounts if self.is_plain else np.add.reduceat(amounts, self.starts)
        return total

    def all(self, truths: Truths) -> Truths:
        every: Truths = truths if self.is_plain else np.logical_and.reduceat(truths, self.starts)
        return every

    def price_ids(self, ids: pa.Array) -> pa.Array:
        """The id of each row: the different ones of its iterations."""
        if self.is_plain:
            return ids
        each = ids.to_pylist()
        spans = pairwise([*self.starts.tolist(), len(each)])
        return pa.array([join_price_ids(each[start:end]) for start, end in spans], pa.string())


def split_iterations(events: pa.Table) -> IterationRows:
    """Nothing is copied where no row has iterations."""
    has_iterations = pc.match_substring(pc.fill_null(events["usage"].cast(pa.string()), ""), PREFIX).combine_chunks()
    places = pc.indices_nonzero(has_iterations).to_numpy()
    if not len(places):
        return IterationRows(events, np.arange(len(events)))
    rows = [_rows_of(row) for row in events.select(ROW_COLUMNS).take(pa.array(places)).to_pylist()]
    counts = np.ones(len(events), np.int64)
    counts[places] = [len(each) for each in rows]
    owners = np.repeat(np.arange(len(events)), counts)
    table = events.take(pa.array(owners))
    is_iteration = pa.array(np.isin(owners, places))
    flat = [row for each in rows for row in each]
    for name in ROW_COLUMNS:
        values = pa.array([row[name] for row in flat]).cast(table.schema.field(name).type)
        column = pc.replace_with_mask(table[name].combine_chunks(), is_iteration, values)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return IterationRows(table, np.cumsum(counts) - counts)


def _rows_of(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    try:
        return [*iteration_rows(row)] or [row]
    except ValueError:
        return [CONTRADICTION]
