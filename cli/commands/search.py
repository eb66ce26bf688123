"""`insights search`: find requests by words in their texts."""

from typing import Annotated, Any

import typer

from cli.api_connection import DEFAULT_DIRECTORY, ApiKey, ApiUrl, DataDirectory, connect
from cli.commands.analytics import read_object
from cli.output.charts import show_found
from cli.output.formats import Output, OutputFormat, chosen, write_answer, write_rows
from router_insights import FoundRequest

app = typer.Typer(add_completion=False)


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS...", help="Each by its beginning, typos allowed.")],
    filter_file: Annotated[
        str | None,
        typer.Option("--filter", metavar="FILE|-", help="Only what this filter group leaves, as JSON."),
    ] = None,
    page: Annotated[int, typer.Option(metavar="N", min=1, help="Which page.")] = 1,
    per_page: Annotated[int | None, typer.Option(metavar="N", help="Requests of a page.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every page. json is then an array.")] = False,
    output: Output = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDirectory = DEFAULT_DIRECTORY,
) -> None:
    form = chosen(output)
    wanted: dict[str, Any] = {"q": " ".join(words), "page": page}
    if per_page is not None:
        wanted["per_page"] = per_page
    if filter_file is not None:
        wanted["filter_group"] = read_object(filter_file, "a filter group")
    if everything and form is OutputFormat.TABLE:
        raise typer.BadParameter("--all is for programs: add --output ndjson, csv, json or parquet")
    with connect(api_url, api_key, data_dir) as client:
        if everything:
            write_rows(form, client.analytics.iter_search(wanted), FoundRequest)
            return
        found = client.analytics.search_requests(wanted)
    write_answer(form, found, found.items, FoundRequest, lambda console: show_found(console, found))
