"""Which API the commands that ask one ask, and with which key."""

from pathlib import Path
from typing import Annotated

import typer

from aggregator.errors import InsightsError
from aggregator.running_stack import RunningStack
from cli.local_stack.data_dir import API_KEY_FILE
from router_insights import Client

ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api-url", envvar="INSIGHTS_API_URL", metavar="URL", help="Address of the API, like http://localhost:8080."
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="INSIGHTS_API_KEY", metavar="KEY", show_envvar=True, help="Key of the API, like ak-..."
    ),
]
DataDirectory = Annotated[
    Path,
    typer.Option(
        envvar="INSIGHTS_DATA_DIR",
        metavar="DIRECTORY",
        help="Where an insights up keeps its data; without --api-url, that one is asked.",
    ),
]
DEFAULT_DIRECTORY = Path("data")


class ApiConnectionSettingsError(InsightsError):
    """It is not known which API to ask, or with which key; the message says what to give."""


def connect(api_url: str | None, api_key: str | None, data_dir: Path) -> Client:
    """A client of the API that is named, else of the `insights up` over `data_dir`. Raises
    ApiConnectionSettingsError and RunningStackError."""
    try:
        return Client(*address_and_key(api_url, api_key, data_dir))
    except ValueError as error:
        # Their names of arguments, our names of options.
        text = str(error).replace("base_url: ", "--api-url: ").replace("api_key: ", "--api-key: ")
        raise ApiConnectionSettingsError(text) from error


def address_and_key(api_url: str | None, api_key: str | None, data_dir: Path) -> tuple[str, str]:
    """Those that are given, else of the `insights up` over `data_dir`.

    The key of a data directory is sent to its own stack only, and only while that runs. Raises
    ApiConnectionSettingsError and RunningStackError.
    """
    if not api_url and (running := RunningStack.find(data_dir)):
        api_url, api_key = running.api_url, api_key or _read(data_dir / API_KEY_FILE)
    if not api_url:
        raise ApiConnectionSettingsError(
            "no API is named: give --api-url and --api-key, set INSIGHTS_API_URL and INSIGHTS_API_KEY, or name the"
            f" directory of a running insights up with --data-dir (there is none in {data_dir})"
        )
    if not api_key:
        raise ApiConnectionSettingsError(f"no key for {api_url}: give --api-key, or set INSIGHTS_API_KEY")
    return api_url, api_key


def _read(file: Path) -> str:
    """What a file of a data directory holds; nothing where there is no such file. Raises ApiConnectionSettingsError."""
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ApiConnectionSettingsError(f"{file} cannot be read: {error}") from error
