"""`insights analytics`: ask the API for charts."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.api_connection import DEFAULT_DIRECTORY, ApiKey, ApiUrl, DataDirectory, connect
from cli.output.charts import show_chart
from cli.output.formats import Output, OutputError, OutputFormat, chosen, write_answer
from router_insights import Chart, ChartAnswer

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

    def show(console: Console) -> None:
        for chart in charts:
            show_chart(console, chart)

    write_answer(form, answer, _rows(form, charts), None, show, float)


def _rows(form: OutputFormat, charts: list[Chart]) -> Sequence[Any]:
    """Raises OutputError for more than one chart where rows have columns."""
    if form not in (OutputFormat.CSV, OutputFormat.PARQUET):
        return charts
    if len(charts) != 1:
        raise OutputError(f"--output {form} takes the rows of one chart, and the question asks for {len(charts)}")
    return charts[0].data
