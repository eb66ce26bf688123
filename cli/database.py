"""The warehouse that `INSIGHTS_CLICKHOUSE_URL` names."""

from aggregator.warehouse import Warehouse


class DatabaseUrlError(Exception):
    """INSIGHTS_CLICKHOUSE_URL is no address of a database; the message says what is allowed."""


def open_warehouse(url: str) -> Warehouse:
    """Raises DatabaseUrlError for a URL of an unknown kind; whether it answers shows with the first query."""
    try:
        return Warehouse(url)
    except ValueError as error:
        raise DatabaseUrlError(f"INSIGHTS_CLICKHOUSE_URL: {error}") from error
