"""`insights api`: the read API, as a container runs it."""

import asyncio

import typer

from api.app import create_app
from cli.adapters.budget_store import KafkaBudgets
from cli.adapters.clickhouse import open_warehouse
from cli.adapters.price_list import BookPrices
from cli.logging_config import configure_logs
from cli.serving import listen, make_server, serve_metrics, stop_on_signals
from cli.settings import ApiCommandSettings
from cli.tracing import traced
from ingest.producer.event_publisher import KafkaEventPublisher

app = typer.Typer(add_completion=False)


@app.command()
def api() -> None:
    configure_logs()
    with traced("insights-api"):
        asyncio.run(run_api(ApiCommandSettings()))


async def run_api(settings: ApiCommandSettings) -> None:
    """Serve the API until SIGINT or SIGTERM; events too, where Kafka's address is given."""
    stop = stop_on_signals()
    # Nobody waits longer for an answer, so no thread waits longer for a server that has stopped to answer.
    seconds = settings.request_timeout_seconds
    warehouse = open_warehouse(settings.clickhouse_url.get_secret_value(), timeout_seconds=seconds)
    servers = settings.kafka_bootstrap_servers
    options = settings.client_options()
    publisher = KafkaEventPublisher(servers, settings.kafka_topic, **options) if servers else None
    budgets = KafkaBudgets(servers, **options) if servers else None
    application = create_app(settings, warehouse, publisher, budgets, BookPrices(settings.prices_file))
    server = make_server(application, settings)
    serve_metrics(settings.api_metrics_port, "INSIGHTS_API_METRICS_PORT", settings.host)
    serving = asyncio.create_task(server.serve([listen(settings.host, settings.port)]))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    stopped.cancel()
    if publisher is not None:
        await publisher.close()
    if budgets is not None:
        await budgets.close()
    warehouse.close()
