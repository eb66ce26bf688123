"""`insights aggregate`: one aggregator, as a container runs it."""

import asyncio

import typer

from aggregator.budgets.app import Aggregator
from aggregator.budgets.settings import AggregateSettings
from cli.adapters.clickhouse import open_warehouse
from cli.logging_config import configure_logs
from cli.serving import check_migrated, serve_metrics, stop_on_signals

app = typer.Typer(add_completion=False)


@app.command()
def aggregate() -> None:
    configure_logs()
    asyncio.run(run_aggregate(AggregateSettings()))


async def run_aggregate(settings: AggregateSettings) -> None:
    """Count usage and give alerts until SIGINT or SIGTERM. Raises ServiceError where the database lacks tables."""
    stop = stop_on_signals()
    warehouse = open_warehouse(settings.clickhouse_url.get_secret_value())
    check_migrated(warehouse)
    serve_metrics(settings.metrics_port)
    aggregator = Aggregator(settings, warehouse)
    await aggregator.start()
    failed, stopped = asyncio.create_task(aggregator.wait()), asyncio.create_task(stop.wait())
    await asyncio.wait([failed, stopped], return_when=asyncio.FIRST_COMPLETED)
    await aggregator.stop()
    stopped.cancel()
    warehouse.close()
    await failed
