"""Whole rows of request logs with their payloads, and the fields that the API makes of them."""

from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal

from pydantic_core import from_json

from aggregator.clickhouse.tables import DETAIL_COLUMNS, KEY_COLUMNS, PAYLOAD_COLUMNS
from aggregator.cost_explanation import COST_COLUMNS, costs_before_fee
from aggregator.times import micros
from api.request_logs.schemas import RequestLog
from api.request_rows import KEY_HASH, OF_KEYS, Row, in_order_of, key_of, keys_bound
from api.security.reader import Reader

DERIVED_FIELDS = {
    "id",
    "input_tokens_cost_microdollar",
    "output_tokens_cost_microdollar",
    *(f"{name}_before_fee" for name in COST_COLUMNS),
}
# As few as can be: opening a column costs more than the few values that are read of it.
ROW_COLUMNS = (
    *(
        name
        for name in RequestLog.model_fields
        if name not in DERIVED_FIELDS.union(PAYLOAD_COLUMNS, KEY_COLUMNS, DETAIL_COLUMNS)
    ),
    "fees",
    "details",
)

SELECT_ROWS = f"SELECT {', '.join((*KEY_COLUMNS, *ROW_COLUMNS))}, {KEY_HASH}"
ROWS = f"SELECT {', '.join((*KEY_COLUMNS, *ROW_COLUMNS))} FROM request_logs {OF_KEYS}"
PAYLOADS = f"SELECT {', '.join((*KEY_COLUMNS, *PAYLOAD_COLUMNS))} FROM request_payloads {OF_KEYS}"


def _with_details(row: Row) -> Row:
    """A row of ROW_COLUMNS with the columns that `details` holds, and the costs before fees."""
    details = dict(zip(DETAIL_COLUMNS, from_json(row["details"]), strict=True))
    return {**row, **details, **costs_before_fee(row, row["fees"])}


def with_payloads(rows: Iterable[Row], payloads: Iterable[Row]) -> Iterator[Row]:
    """Rows joined with their payloads; the columns of a missing payload are empty."""
    missing = dict.fromkeys(PAYLOAD_COLUMNS, "")
    by_key = {key_of(payload): payload for payload in payloads}
    return ({**missing, **by_key.get(key_of(row), {}), **_with_details(row)} for row in rows)


def read_payloads(reader: Reader, rows: list[Row]) -> Iterator[Row]:
    """Whole rows joined with their payloads, which are read here."""
    return with_payloads(rows, reader.query(PAYLOADS, keys_bound(rows)) if rows else [])


def read_rows(reader: Reader, keys: list[Row]) -> Iterator[Row]:
    """The rows of `keys`, in their order, joined with their payloads."""
    if not keys:
        return iter(())
    bound = keys_bound(keys)
    rows, payloads = reader.query_all([(ROWS, bound), (PAYLOADS, bound)])
    return with_payloads(in_order_of(keys, rows), payloads)


def _microdollars(cost: Decimal | None) -> int | None:
    return None if cost is None else int((cost * 1_000_000).quantize(Decimal(1), ROUND_HALF_UP))


def fields_of(row: Row) -> Row:
    """The fields of a RequestLog from a row with its payload."""
    created_at_ms = micros(row["created_at"]) // 1000
    return {
        **row,
        "id": f"{created_at_ms:x}-{row['source_partition']:x}-{row['source_offset']:x}",
        "input_tokens_cost_microdollar": _microdollars(row["input_tokens_cost"]),
        "output_tokens_cost_microdollar": _microdollars(row["output_tokens_cost"]),
    }
