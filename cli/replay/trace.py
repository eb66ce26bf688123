"""Reads requests from files: the Azure LLM trace as CSV, or events as they are on Kafka, one a line."""

import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from aggregator.errors import InsightsError
from aggregator.times import EPOCH
from cli.demo.generator import Record, draw_at, records
from ingest.transform.surrogates import without_lone_surrogates
from router_insights.emitter.event import MAX_TOKENS, RequestEvent, parse_timestamp

SEED = 2023
CHUNK_LINES = 5_000
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_LINE = re.compile(r"([^,]+),(\d{1,18}),(\d{1,18})", re.ASCII)
HAS_ZONE = re.compile(r"([Zz]|[+-]\d{2}:\d{2})$")


class TraceFormat(StrEnum):
    AZURE_LLM = "azure-llm"
    EVENTS = "events"


class TraceError(InsightsError):
    """The file cannot be read in the given format; the message says which file and why."""


class Malformed(NamedTuple):
    """A line that is not a request; lines are counted from 1."""

    line: int
    reason: str


class Request(NamedTuple):
    """When a request of the trace arrived, and its Kafka record."""

    moment: datetime
    record: Record


class _Row(NamedTuple):
    line: int
    moment: datetime
    input_tokens: int
    output_tokens: int


def read_lines(file: io.BufferedReader, name: str) -> Iterator[tuple[int, bytes]]:
    """(number, line without its end) of every line that is not empty; a `.gz` file is decompressed.

    Raises TraceError when the file is truncated, or is named `.gz` and is not gzip.
    """
    unpacked = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else nullcontext(file)
    try:
        with unpacked as stream:
            for number, line in enumerate(stream, start=1):
                stripped = line.rstrip(b"\r\n")
                if stripped:
                    yield number, stripped
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{name}: {error}") from error


def parse_azure_line(number: int, line: bytes) -> _Row | Malformed:
    """`2023-11-16 18:15:46.6805900,374,44`: UTC where no zone is given; digits past the microsecond are cut."""
    match = AZURE_LINE.fullmatch(line.decode(errors="replace").strip())
    if not match:
        return Malformed(number, f"is not {AZURE_HEADER}")
    stamp, context, generated = match[1].strip(), int(match[2]), int(match[3])
    try:
        moment = parse_timestamp(stamp if HAS_ZONE.search(stamp) else f"{stamp}Z")
    except PydanticCustomError as error:
        return Malformed(number, f"TIMESTAMP {error.message()}")
    if max(context, generated) > MAX_TOKENS:
        return Malformed(number, f"token counts must be at most {MAX_TOKENS}")
    return _Row(number, moment, context, generated)


def _requests(name: str, rows: list[_Row]) -> Iterator[Request]:
    """The requests of the rows; what the trace lacks is drawn from a seed of the file's name and the line."""
    stem = re.sub(r"(\.csv)?(\.gz)?$", "", name)[-100:]
    digest = hashlib.sha256(stem.encode()).digest()
    rng = np.random.default_rng([SEED, rows[0].line, int.from_bytes(digest[:4], "big")])
    traffic = draw_at(
        rng,
        [f"{stem}-{row.line:07d}" for row in rows],
        np.array([(row.moment - EPOCH) // timedelta(microseconds=1) for row in rows], dtype=np.int64),
        (
            np.array([row.input_tokens for row in rows], dtype=np.int64),
            np.array([row.output_tokens for row in rows], dtype=np.int64),
        ),
    )
    for row, record in zip(rows, records(traffic), strict=True):
        yield Request(row.moment, record)


def _read_azure(
    name: str, lines: Iterator[tuple[int, bytes]], on_malformed: Callable[[Malformed], None]
) -> Iterator[Request]:
    _, header = next(lines, (1, b""))
    if header.decode(errors="replace").lstrip("\ufeff").strip() != AZURE_HEADER:
        raise TraceError(f"{name}: the first line must be {AZURE_HEADER}")
    rows: list[_Row] = []
    for number, line in lines:
        row = parse_azure_line(number, line)
        if isinstance(row, Malformed):
            on_malformed(row)
            continue
        rows.append(row)
        if len(rows) == CHUNK_LINES:
            yield from _requests(name, rows)
            rows = []
    if rows:
        yield from _requests(name, rows)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]


def _read_events(lines: Iterator[tuple[int, bytes]], on_malformed: Callable[[Malformed], None]) -> Iterator[Request]:
    for number, line in lines:
        try:
            event = RequestEvent.model_validate_json(without_lone_surrogates(line))
        except ValidationError as error:
            on_malformed(Malformed(number, _reason(error)))
            continue
        yield Request(event.timestamp, (event.request_id.encode(), line))


def read_requests(
    file: io.BufferedReader, path: Path, form: TraceFormat, on_malformed: Callable[[Malformed], None]
) -> Iterator[Request]:
    """The requests of a file in its order; `on_malformed` is called with each line that is not a request.

    Request ids of the Azure trace come from the file's name and the line, so they are the same every time.
    Raises TraceError when the file has another format.
    """
    name = os.fsencode(path.name).decode(errors="replace")
    lines = read_lines(file, name)
    return (
        _read_azure(name, lines, on_malformed) if form is TraceFormat.AZURE_LLM else _read_events(lines, on_malformed)
    )
