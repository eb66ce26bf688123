"""Reading traces from files: what is a request, what is not and why, and the same ids every time."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.replay.trace import Malformed, Request, TraceError, TraceFormat, read_requests
from router_insights.emitter.event import RequestEvent

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
LINES = f"{HEADER}\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n"


def read(path: Path, content: str | bytes, form: TraceFormat) -> tuple[list[Request], list[Malformed]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    complaints: list[Malformed] = []
    with path.open("rb") as file:
        return list(read_requests(file, path, form, complaints.append)), complaints


def events_of(requests: list[Request]) -> list[RequestEvent]:
    return [RequestEvent.model_validate_json(request.record[1]) for request in requests]


def an_event(**fields: object) -> str:
    event = {"request_id": "r", "timestamp": "2026-01-31T12:00:00Z", "model_name": "m", "status": "success"}
    return json.dumps({**event, **fields})


def test_a_line_of_the_trace_is_a_valid_event_with_its_time_and_tokens(tmp_path: Path) -> None:
    requests, complaints = read(tmp_path / "conv.csv", LINES, TraceFormat.AZURE_LLM)
    first, second = events_of(requests)
    assert complaints == []
    assert first.timestamp == requests[0].moment == datetime(2023, 11, 16, 18, 15, 46, 680590, UTC)
    assert (first.input_tokens, first.output_tokens) == (374, 44)
    assert (second.input_tokens, second.output_tokens) == (396, 109)
    assert first.user_id
    assert first.model_name
    assert first.duration_ms


def test_a_tenth_of_a_microsecond_is_cut_not_rounded(tmp_path: Path) -> None:
    line = f"{HEADER}\n2023-11-16 18:15:46.9999999,1,1\n"
    requests, _ = read(tmp_path / "a.csv", line, TraceFormat.AZURE_LLM)
    assert requests[0].moment == datetime(2023, 11, 16, 18, 15, 46, 999999, UTC)


def test_a_time_with_a_zone_keeps_it(tmp_path: Path) -> None:
    line = f"{HEADER}\n2024-05-10 02:00:00.009930+02:00,2162,5\n"
    requests, _ = read(tmp_path / "a.csv", line, TraceFormat.AZURE_LLM)
    assert requests[0].moment == datetime(2024, 5, 10, 0, 0, 0, 9930, UTC)


def test_ids_come_from_the_file_name_and_the_line_and_everything_else_is_the_same_again(tmp_path: Path) -> None:
    first, _ = read(tmp_path / "conv.csv", LINES, TraceFormat.AZURE_LLM)
    again, _ = read(tmp_path / "conv.csv", LINES, TraceFormat.AZURE_LLM)
    packed, _ = read(tmp_path / "conv.csv.gz", gzip.compress(LINES.encode()), TraceFormat.AZURE_LLM)
    other, _ = read(tmp_path / "code.csv", LINES, TraceFormat.AZURE_LLM)
    assert [request.record[0] for request in first] == [b"conv-0000002", b"conv-0000003"]
    assert first == again == packed
    assert not {request.record[0] for request in other} & {request.record[0] for request in first}


def test_a_file_longer_than_a_chunk_keeps_ids_order_and_tokens(tmp_path: Path) -> None:
    lines = "".join(f"2023-11-16 18:15:46,{number},1\n" for number in range(12_345))
    requests, _ = read(tmp_path / "a.csv", f"{HEADER}\n{lines}", TraceFormat.AZURE_LLM)
    events = events_of(requests)
    assert [event.input_tokens for event in events] == list(range(12_345))
    assert len({event.request_id for event in events}) == 12_345


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", f"is not {HEADER}"),
        ("2023-11-16 18:15:46,1", f"is not {HEADER}"),
        ("2023-11-16 18:15:46,1,2,3", f"is not {HEADER}"),
        ("2023-11-16 18:15:46,-1,2", f"is not {HEADER}"),
        ("2023-11-16 18:15:46,1.5,2", f"is not {HEADER}"),
        ("2023-13-16 18:15:46,1,2", "TIMESTAMP is not a date and time that exists"),
        (
            "16.11.2023,1,2",
            "TIMESTAMP must be RFC 3339 with a zone, or epoch milliseconds as an integer",
        ),
        ("1969-11-16 18:15:46,1,2", "TIMESTAMP must be from 2015-01-01 up to, not including, 2100-01-01"),
        ("2023-11-16 18:15:46,99999999999,2", "token counts must be at most 1000000000"),
        ("\xff\xfe", f"is not {HEADER}"),
    ],
)
def test_a_malformed_line_is_named_and_the_others_are_read(tmp_path: Path, line: str, reason: str) -> None:
    content = f"{HEADER}\n2023-11-16 18:15:46,1,2\n{line}\n\n2023-11-16 18:15:47,3,4\n".encode("latin-1")
    requests, complaints = read(tmp_path / "a.csv", content, TraceFormat.AZURE_LLM)
    assert [event.input_tokens for event in events_of(requests)] == [1, 3]
    assert complaints == [Malformed(3, reason)]


@pytest.mark.parametrize("content", ["", "a,b,c\n1,2,3\n", an_event()])
def test_a_file_without_the_header_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(TraceError, match=f"^a[.]csv: the first line must be {HEADER}"):
        read(tmp_path / "a.csv", content, TraceFormat.AZURE_LLM)


@pytest.mark.parametrize("form", list(TraceFormat))
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"not gzip at all", id="not gzip"),
        pytest.param(gzip.compress(LINES.encode() * 100)[:-20], id="cut off"),
        pytest.param(gzip.compress(LINES.encode())[:12] + b"\0" * 40, id="garbled"),
    ],
)
def test_a_broken_gzip_is_refused_by_name(tmp_path: Path, content: bytes, form: TraceFormat) -> None:
    with pytest.raises(TraceError, match=r"^b\.csv\.gz: "):
        read(tmp_path / "b.csv.gz", content, form)


def test_events_are_sent_as_they_stand_under_their_own_id(tmp_path: Path) -> None:
    lines = [an_event(request_id="räq-1", not_a_field=1), an_event(request_id="r-2", timestamp=1_769_860_800_000)]
    requests, complaints = read(tmp_path / "e.ndjson", "\n".join(lines) + "\r\n\n", TraceFormat.EVENTS)
    assert [request.record for request in requests] == [
        ("räq-1".encode(), lines[0].encode()),
        (b"r-2", lines[1].encode()),
    ]
    assert [request.moment for request in requests] == [datetime(2026, 1, 31, 12, tzinfo=UTC)] * 2
    assert complaints == []


def test_what_is_no_event_is_named_by_line_and_field(tmp_path: Path) -> None:
    lines = [an_event(), "{", an_event(input_tokens=-1), an_event(tags=[1]), "[]"]
    requests, complaints = read(tmp_path / "e.ndjson", "\n".join(lines), TraceFormat.EVENTS)
    assert len(requests) == 1
    assert [complaint.line for complaint in complaints] == [2, 3, 4, 5]
    assert complaints[1].reason == "input_tokens: Input should be greater than or equal to 0"
    assert complaints[2].reason == "tags.0: Input should be a valid string"
