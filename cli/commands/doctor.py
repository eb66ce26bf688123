"""`insights doctor`: runs the checks of cli/doctor/."""

import typer

from cli.adapters.clickhouse import open_warehouse
from cli.doctor.report import run_doctor
from ingest.settings import IngestSettings

app = typer.Typer(add_completion=False)


@app.command()
def doctor() -> None:
    settings = IngestSettings()
    warehouse = open_warehouse(settings.clickhouse_url.get_secret_value())
    raise typer.Exit(0 if run_doctor(settings, warehouse) else 1)
