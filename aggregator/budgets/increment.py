"""What a batch added: the message of the topic `usage-increments`, and its encoding as an Arrow stream.

A message holds sums per minute and subject, for the subjects of one partition of the topic (`subject.partition_of`).
So each subject has one reader, and a tag costs one row per minute. A message also holds the offset range of its batch;
a batch that is replayed has the same range, so that a range that was counted can be dropped.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

SOURCE = b"source"
SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("value", pa.string()),
        # Minutes since 1970 in UTC.
        ("minute", pa.int64()),
        ("requests", pa.int64()),
        ("errors", pa.int64()),
        # Without a cost, by the reason (aggregator/rollups/measures.py).
        ("unpriced", pa.int64()),
        ("missing_usage", pa.int64()),
        ("failed_without_usage", pa.int64()),
        ("tokens", pa.int64()),
        # Dollars.
        ("cost", pa.decimal128(38, 12)),
        ("duration_ms_sum", pa.int64()),
        ("duration_ms_count", pa.int64()),
    ]
)
# Columns that the messages of earlier workers lack. Those that later ones may add are not read.
ADDED = ("missing_usage", "failed_without_usage")
COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


class Source(BaseModel):
    """Where the counted records are: offsets `first` to `last` of a partition of the topic with this id."""

    model_config = ConfigDict(frozen=True)

    topic: str
    topic_id: str
    partition: int
    first: int
    last: int


class Usage(NamedTuple):
    """Sums of one subject and minute; `tokens` are input plus output."""

    kind: str
    value: str
    minute: int
    requests: int
    errors: int
    unpriced: int
    missing_usage: int
    failed_without_usage: int
    tokens: int
    cost: Decimal
    duration_ms_sum: int
    duration_ms_count: int


@dataclass(frozen=True)
class Increment:
    source: Source
    usage: list[Usage]


def encode(source: Source, usage: pa.Table) -> bytes:
    """`usage` has the columns of SCHEMA, in order."""
    schema = SCHEMA.with_metadata({SOURCE: source.model_dump_json().encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=COMPRESSED) as writer:
        writer.write_table(pa.Table.from_arrays(usage.columns, schema=schema))
    return bytes(sink.getvalue())


def decode(message: bytes) -> Increment:
    """Raises ValueError for a message that is no increment; pyarrow's and pydantic's errors are of that class."""
    table = pa.ipc.open_stream(message).read_all()
    metadata = table.schema.metadata or {}
    for field in SCHEMA:
        if field.name in ADDED and field.name not in table.schema.names:
            table = table.append_column(field, pa.array([0] * len(table), field.type))
        if field not in list(table.schema):
            raise ValueError(f"an increment has a column {field}")
    table = table.select(SCHEMA.names)
    source = Source.model_validate_json(metadata.get(SOURCE, b""))
    columns = [column.to_pylist() for column in table.columns]
    return Increment(source, list(map(Usage._make, zip(*columns, strict=True))))
