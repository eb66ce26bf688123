"""Reads of the warehouse with limits on time and memory, confined to the rows that the caller may see."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Request

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import is_cluster
from aggregator.rollups.planner import Question
from api.errors import ApiError
from api.security.auth import RequestCaller
from api.security.permissions import CONTENT_COLUMNS, Caller, Permission

# The threads keep their connections. Four are enough: a ClickHouse server uses all its cores for one query.
QUERY_THREADS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="query")


@dataclass(frozen=True)
class Reader:
    """The warehouse as `caller` may see it, with `limits` (ClickHouse settings) on every query.

    Rows of others do not exist for a confined caller, whatever the SQL says (permissions.py). Content comes back empty
    without Permission.CONTENT; routes that filter or group by content require that permission first.

    Blocks: call it from a sync route, which runs in a thread (the warehouse has one client per thread).
    """

    warehouse: Warehouse
    limits: Mapping[str, Any]
    caller: Caller

    def query(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Rows as dicts. Raises WarehouseUnavailableError or DatabaseError; api/errors.py answers for both."""
        rules = dict(self.limits)
        if filters := self.caller.table_filters:
            if is_cluster(self.warehouse):
                # Shards read tables of another database, to whose names the filters do not apply.
                raise ApiError(403, "Keys that see only some rows are not supported on a cluster of ClickHouse yet.")
            rules["additional_table_filters"] = filters
        rows = self.warehouse.query(sql, parameters, {**(settings or {}), **rules})
        if not self.caller.may(Permission.CONTENT):
            rows = [{name: CONTENT_COLUMNS.get(name, value) for name, value in row.items()} for row in rows]
        return rows

    def confine(self, question: Question) -> Question:
        """The question for this caller: only rollups that keep the dimensions of its restriction may answer it."""
        restriction = self.caller.restriction
        return replace(question, confined_to=restriction.dimensions) if restriction else question

    def query_all(
        self, queries: Sequence[tuple[str, Mapping[str, Any]]], settings: Mapping[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """The rows of each query; they run at the same time. Raises as `query` does, without waiting for the others."""
        if len(queries) == 1:
            return [self.query(queries[0][0], queries[0][1], settings)]
        return list(QUERY_THREADS.map(lambda query: self.query(query[0], query[1], settings), queries))


def _reader(request: Request, caller: RequestCaller) -> Reader:
    return Reader(request.app.state.warehouse, request.app.state.limits, caller)


AppReader = Annotated[Reader, Depends(_reader)]
