"""`insights ingest`: one worker, as a container runs it."""

import asyncio
import gc

import typer

from cli.adapters.clickhouse import open_warehouse
from cli.logging_config import configure_logs
from cli.serving import check_migrated, serve_metrics, stop_on_signals
from cli.tracing import traced
from ingest.consumer.worker import OBJECTS_BETWEEN_COLLECTIONS, Worker
from ingest.settings import IngestSettings

app = typer.Typer(add_completion=False)


@app.command()
def ingest() -> None:
    configure_logs()
    with traced("insights-ingest"):
        asyncio.run(run_ingest(IngestSettings()))


async def run_ingest(settings: IngestSettings) -> None:
    """Ingest until SIGINT or SIGTERM. Raises ServiceError when the database has not been migrated."""
    stop = stop_on_signals()
    warehouse = open_warehouse(
        settings.clickhouse_url.get_secret_value(), settings.clickhouse_shard_urls.get_secret_value()
    )
    check_migrated(warehouse)
    serve_metrics(settings.metrics_port)
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    await Worker(settings, warehouse).run(stop)
    warehouse.close()
