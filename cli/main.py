"""The `insights` command: its commands by name, and errors as sentences.

The module of a command is imported when the command is called, so `insights --help` imports none of them.
"""

import logging
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# What `--help` says of each command; cli/commands/ has a module for each.
COMMANDS = {
    "up": "Run the whole stack on this machine: broker, ClickHouse engine, ingest worker and API.",
    "demo": "Emit realistic requests through the whole stack, check every sum, and show the report.",
    "replay": "Send the requests of files (.gz too) to Kafka. Exit 1 when a line was not a request.",
    "migrate": "Bring the database at INSIGHTS_CLICKHOUSE_URL up to date, on all nodes of INSIGHTS_CLICKHOUSE_CLUSTER.",
    "ingest": "Run an ingest worker: Kafka records to priced rows.",
    "api": "Run the read API.",
    "mcp": "Serve the tools of a running API to an MCP client on standard input and output.",
    "aggregate": "Run an aggregator: spend in windows, budgets and alerts.",
    "reprice": "Give stored rows the prices in force now, then rebuild their rollups, while ingestion goes on.",
    "doctor": "Check Kafka, ClickHouse and what is in them, and say what to do. Exit 1 when there is a fault.",
    "audit": "Who created and revoked keys, changed budgets, repriced, rebuilt, and let dead letters go.",
    "rollups": "Compare the rollups with the raw rows, or compute them anew.",
    "dead-letters": "Records that are no valid events: look at them, send them again, let them go.",
    "keys": "Who may ask the API: keys with scopes, kept as hashes.",
    "budgets": "How much a user, key, model or tag may use, and when to speak up.",
    "retention": "How long rows and bodies are kept.",
    "prices": "What costs what, and why a request cost what it did.",
    "request-logs": "Ask the API: logs, one log with its cost explained, statistics.",
    "analytics": "Ask the API for charts.",
    "search": "Ask the API for the requests whose texts hold these words, closest first.",
    "topics": "Compare Kafka's topics and rights with a file, or make them so.",
}


class LazyGroup(TyperGroup):
    """Loads the module of the command that is called; every other command is a placeholder with its help."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, placeholder, rest = super().resolve_command(ctx, args)
        if name is None or placeholder is None:
            return name, placeholder, rest
        module = import_module(f"cli.commands.{name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.help = placeholder.help
        return name, command, rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for name, text in COMMANDS.items():
    app.command(name, help=text)(lambda: None)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"router-insights {version('router-insights')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Who spent what, on which model, when: exact analytics for LLM gateways."""


def main() -> None:
    # Clients log an error before they raise it; the sentence says it once. Services log it in their own form.
    for client in ("clickhouse_connect", "aiokafka"):
        logging.getLogger(client).addHandler(logging.NullHandler())
    try:
        app()
    except Exception as error:
        from cli.errors import exit_code_for, sentence_for

        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(f"insights: {sentence}", file=sys.stderr)
        sys.exit(exit_code_for(error))


if __name__ == "__main__":
    main()
