"""The warehouse that `INSIGHTS_CLICKHOUSE_URL` names."""

from aggregator.migrations import Migration, pending, read_migrations
from aggregator.warehouse import DatabaseError, Warehouse

UNKNOWN_DATABASE = 81


class DatabaseUrlError(Exception):
    """INSIGHTS_CLICKHOUSE_URL is no address of a database; the message says what is allowed."""


def open_warehouse(url: str) -> Warehouse:
    """Raises DatabaseUrlError for a URL of an unknown kind; whether it answers shows with the first query."""
    try:
        return Warehouse(url)
    except ValueError as error:
        raise DatabaseUrlError(f"INSIGHTS_CLICKHOUSE_URL: {error}") from error


def missing_migrations(warehouse: Warehouse) -> list[Migration]:
    """What the database lacks; everything, if it does not exist yet. Raises MigrationError as `pending` does."""
    migrations = read_migrations()
    try:
        return pending(warehouse, migrations)
    except DatabaseError as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return migrations
