"""Reads of the warehouse with limits on time and memory, confined to the rows that the caller may see."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.cluster import is_cluster
from aggregator.rollups.planner import Question
from api.errors import ApiError
from api.load.call import CallOverError, ReadCall
from api.load.fair_queue import QueueFullError
from api.load.query_threads import QueryThreads
from api.security.permissions import CONTENT_COLUMNS, Caller, Permission

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Reader:
    """The warehouse as `caller` may see it, with `limits` (ClickHouse settings) on every query.

    Rows of others do not exist for a confined caller, whatever the SQL says (permissions.py). Content comes back empty
    without Permission.CONTENT; routes that filter or group by content require that permission first.

    Queries wait for their turn among those of other callers, and all of them for no longer than `call` may take.
    """

    warehouse: Warehouse
    limits: Mapping[str, Any]
    caller: Caller
    threads: QueryThreads
    call: ReadCall

    def query(self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Rows:
        """Rows as dicts. Blocks: call it from the thread of a request.

        Raises WarehouseUnavailableError, DatabaseError or CallOverError; api/errors.py answers for them.
        """
        return self._wait_for(self._submit(sql, parameters, settings))

    def query_all(
        self, queries: Sequence[tuple[str, Mapping[str, Any]]], settings: Mapping[str, Any] | None = None
    ) -> list[Rows]:
        """The rows of each query; they run at the same time. Raises as `query` does, without waiting for the others."""
        submitted = [self._submit(sql, parameters, settings) for sql, parameters in queries]
        return [self._wait_for(future) for future in submitted]

    async def fetch(self, sql: str, parameters: Mapping[str, Any], seconds: float) -> Rows:
        """As `query`, on the event loop and with a time of its own: for answers without an end."""
        alone = replace(self, call=ReadCall(seconds))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(alone._submit(sql, parameters, None))
        except TimeoutError:
            raise CallOverError from None
        finally:
            self.threads.end(alone.call, self.caller.name)

    def confine(self, question: Question) -> Question:
        """The question for this caller: only rollups that keep the dimensions of its restriction may answer it."""
        restriction = self.caller.restriction
        return replace(question, confined_to=restriction.dimensions) if restriction else question

    def _submit(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any] | None
    ) -> Future[list[dict[str, Any]]]:
        try:
            return self.threads.submit(self.call, self.caller.name, partial(self._read, sql, parameters, settings))
        except QueueFullError:
            raise ApiError(503, "Too many queries of this key wait; try again later.") from None

    def _wait_for(self, future: Future[Rows]) -> Rows:
        try:
            return future.result(self.call.remaining_seconds())
        except FutureTimeoutError:
            raise CallOverError from None

    def _read(self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any] | None) -> Rows:
        """On a query thread."""
        rules = {**self.limits, "log_comment": self.call.id}
        left = self.call.remaining_seconds()
        rules["max_execution_time"] = min(rules.get("max_execution_time", left), left)
        if filters := self.caller.table_filters:
            if is_cluster(self.warehouse):
                # Shards read tables of another database, to whose names the filters do not apply.
                raise ApiError(403, "Keys that see only some rows are not supported on a cluster of ClickHouse yet.")
            rules["additional_table_filters"] = filters
        rows = self.warehouse.query(sql, parameters, {**(settings or {}), **rules})
        if not self.caller.may(Permission.CONTENT):
            rows = [{name: CONTENT_COLUMNS.get(name, value) for name, value in row.items()} for row in rows]
        return rows
