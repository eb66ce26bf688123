"""The options that several commands share, and how their texts are parsed."""

from datetime import datetime
from typing import Annotated

import typer
from pydantic_core import PydanticCustomError

from aggregator.settings import KafkaSettings, kafka_addresses
from aggregator.times import EPOCH, Span
from router_insights.emitter.event import parse_timestamp


def moment(text: str) -> datetime:
    """RFC 3339 with a zone, or a date, which stands for its midnight in UTC."""
    try:
        stamp = f"{text}T00:00:00Z" if len(text) == len("2026-01-31") else text
        # Rows of before 2015 may be stored.
        return parse_timestamp(stamp, earliest=EPOCH)
    except PydanticCustomError as error:
        raise typer.BadParameter(f"{text!r} {error.message()}; a date alone is its midnight in UTC") from error


def _servers(text: str) -> str:
    try:
        return kafka_addresses(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def span_between(start: datetime | None, end: datetime | None) -> Span:
    """From `--from` to `--to`; open where one of them is not given."""
    if start is not None and end is not None and start >= end:
        raise typer.BadParameter(f"--from {start.isoformat()} must be before --to {end.isoformat()}")
    return Span(start, end)


From = typer.Option("--from", parser=moment, metavar="TIME", help="Inclusive: RFC 3339, or a date (UTC).")
To = typer.Option("--to", parser=moment, metavar="TIME", help="Exclusive: RFC 3339, or a date (UTC).")


def _known_servers() -> str:
    return KafkaSettings().kafka_bootstrap_servers


Servers = Annotated[
    str,
    typer.Option(
        default_factory=_known_servers,
        envvar="INSIGHTS_KAFKA_BOOTSTRAP_SERVERS",
        parser=_servers,
        metavar="HOST:PORT",
        help="Kafka; several are comma-separated.",
    ),
]
