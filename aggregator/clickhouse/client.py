"""The client of ClickHouse: a server over HTTP, or the engine in this process (chDB)."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError
from clickhouse_connect.driver.query import arrow_buffer

from aggregator.clickhouse.address_space import check_address_space
from aggregator.errors import InsightsError

DEFAULT_DATABASE = "insights"
# Longer than the largest insert takes.
TIMEOUT_SECONDS = 300.0

# Sent with every insert. The server's defaults differ between versions (async_insert is on since 26.3),
# and each of these is part of the exactly-once protocol (docs/architecture.md).
INSERT_SETTINGS: dict[str, Any] = {
    "async_insert": 0,
    # Through a Distributed table too an insert is done when it is stored, not when it is queued.
    "distributed_foreground_insert": 1,
    "insert_deduplicate": 1,
    # Without it a retry that the raw table rejects as a duplicate still feeds the rollups.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # A batch may hold late events of many months; refusing it would block the partition for ever.
    "max_partitions_per_insert_block": 0,
    # A string that looks like a date stays a string inside metadata.
    "input_format_try_infer_dates": 0,
    "input_format_try_infer_datetimes": 0,
}

# To close the connection ends nothing: measured on a server over HTTP and on chDB (docs/decisions/0022).
KILL = "KILL QUERY WHERE Settings['log_comment'] IN {comments:Array(String)} ASYNC"


class WarehouseUnavailableError(InsightsError):
    """ClickHouse does not answer, or cannot serve right now: retry later."""


# Server-side conditions that pass by themselves or by an operator's hand, by ClickHouse's error code:
# timeout, too many queries, no space, memory, read-only table, too many parts, Keeper, shutting down.
TRANSIENT_CODES = frozenset({159, 164, 202, 209, 210, 236, 241, 242, 243, 252, 319, 394, 439, 999})
# Before the first `insights migrate`.
UNKNOWN_TABLE, UNKNOWN_DATABASE = 60, 81
NOT_MIGRATED_CODES = frozenset({UNKNOWN_TABLE, UNKNOWN_DATABASE})


# How the driver words an answer without `X-ClickHouse-Exception-Code`. ClickHouse sends one with every error, so a
# balancer or a proxy has answered in its place.
NOT_FROM_CLICKHOUSE = "HTTP driver received HTTP status"


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, OperationalError | OSError | WarehouseUnavailableError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    return error.code in TRANSIENT_CODES or (error.code is None and str(error).startswith(NOT_FROM_CLICKHOUSE))


@contextmanager
def _wrapping_transient_errors() -> Iterator[None]:
    try:
        yield
    except (ClickHouseError, OSError) as error:
        if is_transient(error):
            raise WarehouseUnavailableError(str(error)) from error
        raise


def _parse(url: str) -> SplitResult:
    """Raises ValueError for a text that is no address of a database."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https", "chdb"}:
        raise ValueError(f"clickhouse url {parts.scheme or url!r}: allowed are http://, https:// and chdb:///directory")
    # chDB would take such a name for a database in memory, or for one below wherever it was started.
    if parts.scheme == "chdb" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError("clickhouse url: chdb:// needs an absolute directory, as in chdb:///var/lib/insights")
    if parts.scheme != "chdb" and not parts.hostname:
        raise ValueError(f"clickhouse url: {parts.scheme}:// needs a host, as in {parts.scheme}://localhost:8123")
    try:
        _ = parts.port
    except ValueError:
        # What urlsplit says names what it took for the port: with a slash in it, that is half of the password.
        raise ValueError(
            "clickhouse url: the port must be a number up to 65535; / ? # @ in a password are written %2F %3F %23 %40"
        ) from None
    return parts


def _deepest(error: BaseException) -> str:
    """The operating system's message, without the layers that passed it on."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)


class Warehouse:
    """ClickHouse at `url`, one client per thread.

    `url` is `http(s)://user:password@host:port/database` or `chdb:///directory`; chDB allows one directory
    per process. The database defaults to `insights`. A chDB client serialises its calls and an HTTP client
    keeps per-call state, so each thread gets its own; `close` closes all of them.

    On a cluster `shards` are the warehouses of its shards, in the cluster's order. A server that sends nothing for
    `timeout_seconds` is away.

    Raises ValueError for a URL of another kind.
    """

    def __init__(
        self,
        url: str,
        database: str | None = None,
        shards: Sequence["Warehouse"] = (),
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        parts = _parse(url)
        self.is_embedded = parts.scheme == "chdb"
        path_database = "" if self.is_embedded else parts.path.strip("/")
        self.database = database or path_database or DEFAULT_DATABASE
        self._dsn = url
        # Without user and password: it stands in messages.
        self._address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._shards = shards
        self._timeout_seconds = timeout_seconds
        self._local = threading.local()
        self._clients: list[Client] = []
        self._lock = threading.Lock()

    def _connect(self, database: str) -> Client:
        # Without a session an HTTP client runs queries side by side; chDB has no sessions to speak of.
        if self.is_embedded:
            check_address_space()
        options: dict[str, Any] = {}
        if not self.is_embedded:
            options = {"autogenerate_session_id": False, "send_receive_timeout": self._timeout_seconds}
        try:
            return clickhouse_connect.get_client(dsn=self._dsn, database=database, **options)
        except (DatabaseError, OSError) as error:
            if not is_transient(error):
                raise
            raise WarehouseUnavailableError(
                f"ClickHouse at {self._address} (INSIGHTS_CLICKHOUSE_URL) does not answer: {_deepest(error)}"
            ) from error

    @property
    def client(self) -> Client:
        """This thread's client. Raises WarehouseUnavailableError when ClickHouse does not answer."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._connect(self.database)
            with self._lock:
                self._clients.append(client)
        return client

    def shard_for(self, partition: int) -> "Warehouse":
        """Where rows of a Kafka partition are written: always the same shard, as only it knows their tokens."""
        return self._shards[partition % len(self._shards)] if self._shards else self

    def in_database(self, database: str) -> "Warehouse":
        """Another database of the same server. The caller closes it."""
        return Warehouse(self._dsn, database)

    def create_database(self) -> None:
        """Create the database if it does not exist; the only call that works without it."""
        client = self._connect("default")
        try:
            client.command(f"CREATE DATABASE IF NOT EXISTS `{self.database}`")
        finally:
            client.close()

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run a SELECT with bound `{name:Type}` parameters; rows as dicts.

        Raises WarehouseUnavailableError if a retry may succeed, DatabaseError if not.
        """
        with _wrapping_transient_errors():
            return list(self.client.query(sql, dict(parameters or {}), settings=settings).named_results())

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that returns nothing. Raises what `query` raises."""
        with _wrapping_transient_errors():
            self.client.command(sql, dict(parameters or {}))

    def kill(self, comments: Sequence[str]) -> None:
        """End what runs with one of these as its setting `log_comment`; it fails with code 394. Raises what `query`
        raises. Behind a balancer it may reach another server."""
        self.command(KILL, {"comments": list(comments)})

    def insert(self, table: str, rows: pa.Table, token: str, is_compressed: bool = True) -> None:
        """Insert `rows` once: a second insert under the same `token` changes nothing, in the table or in
        any rollup fed by it, and completes a first try that was cut off. Without `is_compressed` the network carries
        the rows as they are."""
        client = self.client
        names, block = arrow_buffer(rows, client.write_compression if is_compressed else None)
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
        client.raw_insert(table, names, block, settings, "Arrow")

    def close(self) -> None:
        with self._lock:
            for client in self._clients:
                client.close()
            self._clients.clear()
        self._local = threading.local()
        for shard in self._shards:
            shard.close()


__all__ = ["DatabaseError", "Warehouse", "WarehouseUnavailableError", "is_transient"]
