"""The warehouse that `INSIGHTS_CLICKHOUSE_URL` names."""

from pathlib import Path
from urllib.parse import urlsplit

from aggregator.clickhouse.client import TIMEOUT_SECONDS, UNKNOWN_DATABASE, DatabaseError, Warehouse
from aggregator.clickhouse.cluster import is_shard
from aggregator.clickhouse.migrate import pending
from aggregator.clickhouse.migration_files import Migration, read_migrations
from aggregator.errors import InsightsError
from aggregator.running_stack import RunningStack
from cli.settings import AdminSettings

EMBEDDED = "chdb://"


class DatabaseUrlError(InsightsError):
    """INSIGHTS_CLICKHOUSE_URL is no address of a database; the message says what is allowed."""


def open_warehouse(url: str, shard_urls: str = "", timeout_seconds: float = TIMEOUT_SECONDS) -> Warehouse:
    """The warehouse at `url`, which writes to the shards at the comma-separated `shard_urls` where there are any.

    Raises DatabaseUrlError for a URL of an unknown kind, and for a shard that is none; whether a single server answers
    shows with the first query.
    """
    if url.startswith(EMBEDDED) and (running := RunningStack.find(Path(url.removeprefix(EMBEDDED)).parent)):
        # The engine lets one process at a time open its directory, and that one serves it.
        url = running.clickhouse_url
    shards = [_shard(shard_url.strip()) for shard_url in shard_urls.split(",") if shard_url.strip()]
    try:
        return Warehouse(url, shards=shards, timeout_seconds=timeout_seconds)
    except ValueError as error:
        raise DatabaseUrlError(f"INSIGHTS_CLICKHOUSE_URL: {error}") from error


def admin_warehouse() -> Warehouse:
    """The warehouse at INSIGHTS_CLICKHOUSE_URL, for a command of an administrator. Raises DatabaseUrlError."""
    return open_warehouse(AdminSettings().clickhouse_url.get_secret_value())


def _shard(url: str) -> Warehouse:
    try:
        shard = Warehouse(url)
    except ValueError as error:
        raise DatabaseUrlError(f"INSIGHTS_CLICKHOUSE_SHARD_URLS: {error}") from error
    if not is_shard(shard):
        # Inserts through Distributed tables, or into a database of another kind, would not know the tokens.
        raise DatabaseUrlError(
            f"INSIGHTS_CLICKHOUSE_SHARD_URLS: the database {shard.database} of {urlsplit(url).hostname} has no"
            " replicated tables; it must be the shard's database (like insights_shard), after insights migrate"
        )
    return shard


def missing_migrations(warehouse: Warehouse) -> list[Migration]:
    """What the database lacks; everything, if it does not exist yet. Raises MigrationError as `pending` does."""
    migrations = read_migrations()
    try:
        return pending(warehouse, migrations)
    except DatabaseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return migrations
