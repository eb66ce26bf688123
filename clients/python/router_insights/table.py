"""Answers as tables of Arrow, Polars and pandas, where these libraries are installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class Table(msgspec.Struct, frozen=True):
    """An answer that has rows."""

    @property
    def rows(self) -> Sequence[Any]:
        raise NotImplementedError

    @property
    def row_type(self) -> type[msgspec.Struct] | None:
        """The type of the rows, whose fields are the columns, also where there is no row; None for rows of mappings."""
        return None

    def to_arrow(self) -> pyarrow.Table:
        """A row each. Money is decimal128(38, 12), a time is in UTC, an object is JSON text. Needs pyarrow."""
        return to_arrow(self.rows, self.row_type)

    def to_polars(self) -> polars.DataFrame:
        """As `to_arrow`; needs polars and pyarrow."""
        library = _library("polars", "to_polars")
        frame: polars.DataFrame = library.from_arrow(self.to_arrow())
        return frame

    def to_pandas(self) -> pandas.DataFrame:
        """As `to_arrow`; money is of Python's Decimal. Needs pandas and pyarrow."""
        _library("pandas", "to_pandas")
        return self.to_arrow().to_pandas()


def to_arrow(rows: Iterable[Any], row_type: type[msgspec.Struct] | None = None) -> pyarrow.Table:
    """A table of what answers and iterators give, such as `to_arrow(client.request_logs.iter_request_logs())`.

    `row_type` names the columns where there may be no row. Raises ImportError without pyarrow.
    """
    arrow = _library("pyarrow", "to_arrow")
    rows = list(rows)
    if row_type is None and rows and isinstance(rows[0], msgspec.Struct):
        row_type = type(rows[0])
    if row_type is None:
        return arrow.Table.from_pylist(rows)
    columns = {}
    for field in msgspec.structs.fields(row_type):
        kind = _arrow_type(arrow, field.type)
        values = [getattr(row, field.name) for row in rows]
        if kind == arrow.string():
            # What has no column type of its own: objects have no common shape.
            values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
        columns[field.name] = arrow.array(values, type=kind)
    return arrow.table(columns)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _arrow_type(arrow: Any, annotation: Any) -> Any:
    """None leaves the type to the values."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _arrow_type(arrow, kinds[0]) if len(kinds) == 1 else None
    if annotation == list[str]:
        return arrow.list_(arrow.string())
    simple = {
        int: arrow.int64(),
        float: arrow.float64(),
        bool: arrow.bool_(),
        Decimal: arrow.decimal128(38, 12),
        datetime: arrow.timestamp("us", tz="UTC"),
    }
    return simple.get(annotation, arrow.string())


def _library(name: str, method: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        extra = {"pyarrow": "arrow"}.get(name, name)
        raise ImportError(f"{method} needs {name}: pip install 'router-insights-client[{extra}]'", name=name) from error
