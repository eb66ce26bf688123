"""Answers of the API for programs: JSON, a row a line, CSV and Parquet. Written row by row, whatever their number."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from enum import StrEnum
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import msgspec
import typer
from rich.console import Console

from aggregator.errors import InsightsError

if TYPE_CHECKING:
    import pyarrow

# Rows of a row group of Parquet: what is in memory at a time.
ROWS_OF_GROUP = 1_000
# Beside the control characters that JSON itself escapes.
STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


Output = Annotated[
    OutputFormat | None,
    typer.Option("--output", "-o", help="Without it, a table on a terminal and json in a pipe or file."),
]


class OutputError(InsightsError):
    """The answer cannot be written in this form, or not to this place; the message says what can."""


def chosen(output: OutputFormat | None) -> OutputFormat:
    """Raises OutputError for Parquet on a terminal."""
    if output is None:
        return OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON
    if output is OutputFormat.PARQUET and sys.stdout.isatty():
        raise OutputError("--output parquet is not text: send it to a file, like > requests.parquet")
    return output


def plain(amount: Decimal) -> str:
    """Every digit, never with an exponent."""
    return format(amount, "f")


def json_text(value: Any, dollars: Callable[[Decimal], str | float] = plain, indent: int | None = None) -> str:
    """What moves a cursor, changes colours or turns the direction is escaped: people look at JSON, too."""
    simple = msgspec.to_builtins(value, builtin_types=[Decimal])
    text = json.dumps(simple, default=dollars, ensure_ascii=False, indent=indent)
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_json(answer: Any, dollars: Callable[[Decimal], str | float] = plain) -> None:
    """One document; `dollars` is how this part of the API writes them."""
    print(json_text(answer, dollars, indent=2))


def write_answer(
    output: OutputFormat,
    answer: Any,
    rows: Iterable[Any],
    row_type: type[msgspec.Struct] | None,
    show: Callable[[Console], None],
    dollars: Callable[[Decimal], str | float] = plain,
) -> None:
    """An answer whole as JSON, by its rows in every other form for programs; `show` draws it for people."""
    match output:
        case OutputFormat.TABLE:
            show(Console())
        case OutputFormat.JSON:
            write_json(answer, dollars)
        case _:
            write_rows(output, rows, row_type)


def write_rows(output: OutputFormat, rows: Iterable[Any], row_type: type[msgspec.Struct] | None) -> None:
    """Each row as it comes, in a form for programs. `row_type` names the columns where no row comes; None is of rows
    that are mappings."""
    match output:
        case OutputFormat.NDJSON:
            for row in rows:
                print(json_text(row), flush=True)
        case OutputFormat.JSON:
            _write_array(rows)
        case OutputFormat.CSV:
            _write_csv(rows, row_type, sys.stdout)
        case OutputFormat.PARQUET:
            _write_parquet(rows, row_type)
        case OutputFormat.TABLE:
            raise AssertionError("tables are for people: each command draws its own")


def _write_array(rows: Iterable[Any]) -> None:
    print("[", end="")
    separator = "\n"
    for row in rows:
        print(separator + json_text(row), end="")
        separator = ",\n"
    print("\n]")


def _write_csv(rows: Iterable[Any], row_type: type[msgspec.Struct] | None, file: TextIO) -> None:
    """A column for each field; objects and lists are JSON text, unknown is empty."""
    if row_type is not None:
        names = [field.name for field in msgspec.structs.fields(row_type)]
    else:
        # Rows of a chart: few, and one may lack what another has.
        rows = list(rows)
        names = list(dict.fromkeys(chain.from_iterable(rows)))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = msgspec.structs.asdict(row) if isinstance(row, msgspec.Struct) else row
        writer.writerow({name: _cell(value) for name, value in cells.items()})


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, str | int | float | Decimal) and not isinstance(value, bool)):
        return plain(value) if isinstance(value, Decimal) else value
    text = json_text(value)
    return text[1:-1] if text.startswith('"') else text


def _write_parquet(rows: Iterable[Any], row_type: type[msgspec.Struct] | None) -> None:
    """To standard output. The columns are those of `to_arrow` of the Python client."""
    import pyarrow.parquet

    tables = _tables(rows, row_type)
    first = next(tables)
    sink = sys.stdout.buffer
    with pyarrow.parquet.ParquetWriter(sink, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table.cast(first.schema))
    sink.flush()


def _tables(rows: Iterable[Any], row_type: type[msgspec.Struct] | None) -> "Iterator[pyarrow.Table]":
    """At least one."""
    from router_insights import to_arrow

    if row_type is None:
        yield to_arrow(list(rows))
        return
    rows = iter(rows)
    yield to_arrow(list(islice(rows, ROWS_OF_GROUP)), row_type)
    while group := list(islice(rows, ROWS_OF_GROUP)):
        yield to_arrow(group, row_type)
