"""`insights analytics`: ask the API for charts."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.api_connection import DEFAULT_DIRECTORY, ApiKey, ApiUrl, DataDirectory, connect
from cli.output.charts import show_chart
from cli.output.formats import Output, OutputError, OutputFormat, chosen, write_json, write_rows
from router_insights import ChartAnswer

app = typer.Typer(add_completion=False, no_args_is_help=True)


def read_object(file: str, option: str) -> dict[str, Any]:
    """The JSON object of a file, or of standard input for `-`. Raises BadParameter that names the place."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{file}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file}: {option} must be a JSON object")
    return found


@app.callback()
def group() -> None:
    """Charts over requests."""


@app.command("query")
def query(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The question as JSON (docs/analytics.md).")],
    output: Output = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDirectory = DEFAULT_DIRECTORY,
) -> None:
    """Custom charts. ndjson is a chart a line; csv and parquet take a single chart."""
    form = chosen(output)
    question = read_object(file, "the question")
    with connect(api_url, api_key, data_dir) as client:
        answer = client.analytics.custom_analytics(question)
    _print_charts(form, answer)


def _print_charts(form: OutputFormat, answer: ChartAnswer) -> None:
    charts = answer.custom_charts
    match form:
        case OutputFormat.TABLE:
            for chart in charts:
                show_chart(Console(), chart)
        case OutputFormat.JSON:
            write_json(answer, float)
        case OutputFormat.NDJSON:
            write_rows(form, charts, None)
        case _ if len(charts) == 1:
            write_rows(form, charts[0].data, None)
        case _:
            raise OutputError(f"--output {form} takes the rows of one chart, and the question asks for {len(charts)}")
