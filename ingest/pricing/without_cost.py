"""Why rows have no cost, as a column: what `aggregator.cost_explanation.unpriced_reason` says of one row."""

import pyarrow as pa
import pyarrow.compute as pc


def unpriced_reasons(rows: pa.Table, is_error: pa.ChunkedArray, cost: pa.ChunkedArray) -> pa.ChunkedArray:
    """The reason of each row, null where it has a cost. `rows` has the columns input_tokens, output_tokens, usage."""
    has_usage = pc.or_(
        pc.or_(pc.is_valid(rows["input_tokens"]), pc.is_valid(rows["output_tokens"])),
        pc.not_equal(rows["usage"].cast(pa.string()), ""),
    )
    without_usage = pc.if_else(is_error, "failed_without_usage", "no_usage")
    reasons = pc.if_else(has_usage, "no_price", without_usage)
    return pc.if_else(pc.is_valid(cost), pa.scalar(None, pa.string()), reasons)
