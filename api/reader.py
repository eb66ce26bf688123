"""Reads of the warehouse that cannot run away."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from aggregator.warehouse import Warehouse


@dataclass(frozen=True)
class Reader:
    """The warehouse with `limits` (ClickHouse settings) on every query.

    Blocks: call it from a sync route, which runs in a thread (the warehouse has one client per thread).
    """

    warehouse: Warehouse
    limits: Mapping[str, Any]

    def query(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Rows as dicts. Raises WarehouseUnavailableError or DatabaseError; api/errors.py answers for both."""
        return self.warehouse.query(sql, parameters, {**(settings or {}), **self.limits})


def _reader(request: Request) -> Reader:
    reader: Reader = request.app.state.reader
    return reader


AppReader = Annotated[Reader, Depends(_reader)]
