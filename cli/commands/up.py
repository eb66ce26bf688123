"""`insights up`: the arguments of the stack on one machine (cli/local_stack/)."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


def _directory(text: str) -> Path:
    if not text:
        raise typer.BadParameter("--data-dir must not be empty; . is this directory")
    return Path(text)


@app.command()
def up(
    data_dir: Annotated[
        Path,
        typer.Option(
            envvar="INSIGHTS_DATA_DIR", parser=_directory, metavar="DIRECTORY", help="Where rows and the key are kept."
        ),
    ] = Path("data"),
    host: Annotated[str, typer.Option(envvar="INSIGHTS_HOST", help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="INSIGHTS_PORT", min=1, max=65535, help="Port the API listens on.")
    ] = 8080,
    broker_port: Annotated[int, typer.Option(min=1, max=65535, help="Port the embedded broker listens on.")] = 9092,
) -> None:
    # The whole stack takes seconds to import, which `--help` must not.
    from cli.local_stack.up import run_up
    from cli.logging_config import configure_logs

    configure_logs()
    run_up(data_dir, host, port, broker_port)
