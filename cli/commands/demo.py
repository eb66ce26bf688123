"""`insights demo`: the arguments of the demo (cli/demo/)."""

from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    requests: Annotated[int, typer.Option(min=1, max=5_000_000, help="Valid requests to emit.")] = 50_000,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack running to look further.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same requests.")] = 1,
) -> None:
    # Takes seconds to import, which `--help` must not.
    from cli.demo.demo import run_demo

    raise typer.Exit(0 if run_demo(requests, seed, keep) else 1)
