"""DuckDB in this process: what joins a batch with its prices."""

import duckdb


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """An engine of one thread: batches of different partitions are what runs side by side."""
    connection = duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    return connection
