"""`insights replay`: the arguments of the replay of files (cli/replay/)."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import Servers
from cli.replay.replay import run_replay
from cli.replay.trace import TraceFormat

app = typer.Typer(add_completion=False)


def _speed(text: str) -> float:
    """`max` (infinite), or how many times faster than it happened."""
    try:
        speed = float("inf") if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise typer.BadParameter(f"--speed {text!r} must be max or a number above 0, like 10 for ten times as fast")
    return speed


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, readable=True)],
    form: Annotated[
        Literal["azure-llm", "events"], typer.Option("--format", help="azure-llm: CSV; events: one JSON object a line.")
    ],
    bootstrap_servers: Servers,
    speed: Annotated[
        str, typer.Option(metavar="max|X", help="As fast as Kafka takes them, or X times as fast as they happened.")
    ] = "max",
) -> None:
    raise typer.Exit(0 if run_replay(files, TraceFormat(form), _speed(speed), bootstrap_servers) else 1)
