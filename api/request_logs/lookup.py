"""One request log by its id, with the explanation of its cost."""

from datetime import datetime
from typing import Any

from aggregator.clickhouse.sql import instant
from aggregator.clickhouse.tables import KEY_COLUMNS, PAYLOAD_COLUMNS
from aggregator.cost_explanation import explain, unpriced_reason
from api.errors import ApiError
from api.request_logs.rows import SELECT_ROWS, fields_of, with_payloads
from api.request_logs.schemas import CostExplanation, ExplainedLog
from api.request_rows import Row
from api.security.reader import Reader

# All other columns are read for the one row only.
NEWEST_OF_ID = f"""
{SELECT_ROWS} FROM request_logs
WHERE request_id = {{request_id:String}}
ORDER BY timestamp DESC, created_at DESC, source_partition DESC, source_offset DESC LIMIT 1
"""
# Reading in the order of the table would win over the projection by_request_id and scan every partition; and in a part
# below a million rows, as every new one is, all ids would be read.
LOOKUP_SETTINGS = {"optimize_read_in_order": 0, "min_table_rows_to_use_projection_index": 0}


def payload_query(timestamp: datetime, request_id: str) -> tuple[str, dict[str, Any]]:
    """SQL for the payload of one row, and its parameters; others may have the same id and the same microsecond.

    ClickHouse plans it faster than OF_KEYS, which is for many rows.
    """
    columns = ", ".join((*KEY_COLUMNS, *PAYLOAD_COLUMNS))
    where = f"timestamp = {instant(timestamp)} AND request_id = {{request_id:String}}"
    return f"SELECT {columns} FROM request_payloads WHERE {where}", {"request_id": request_id}


def _explained(row: Row) -> ExplainedLog:
    found = explain(row)
    return ExplainedLog(
        **fields_of(row),
        cost_explanation=found and CostExplanation.model_validate(found),
        unpriced_reason=unpriced_reason(row),
    )


def find_log(reader: Reader, request_id: str) -> ExplainedLog:
    """The newest log with that id. Raises ApiError 404 if there is none."""
    rows = reader.query(NEWEST_OF_ID, {"request_id": request_id}, LOOKUP_SETTINGS)
    if not rows:
        raise ApiError(404, "There is no request log with this id.")
    payloads = reader.query(*payload_query(rows[0]["timestamp"], request_id))
    return next(map(_explained, with_payloads(rows, payloads)))
