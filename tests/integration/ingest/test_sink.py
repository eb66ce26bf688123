import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.tables import DETAIL_COLUMNS
from aggregator.rollups import rebuild
from aggregator.rollups.measures import ROLLUPS
from ingest.consumer.batch import Batch
from ingest.consumer.sink import Sink
from ingest.pricing import PriceBook
from ingest.transform.rows import MAX_DEAD_LETTER_BYTES
from router_insights.emitter.event import RequestEvent
from tests.support.events import MINIMAL, event_bytes

UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

HOUR_MS = 1_795_000_000_000


@dataclass
class StoredRecord:
    """A Kafka record as aiokafka hands it out."""

    offset: int
    value: bytes | None
    timestamp: int = HOUR_MS
    key: bytes | None = b"key"
    headers: Sequence[tuple[str, bytes]] = ()


def batch_of(*values: bytes | None, first: int = 0, partition: int = 0) -> Batch:
    records = [StoredRecord(first + place, value) for place, value in enumerate(values)]
    return Batch("request-events", partition, records, HOUR_MS, 0)


def encode(**fields: Any) -> bytes:
    return json.dumps({**MINIMAL, **fields}).encode()


@pytest.fixture
def sink(warehouse: Warehouse) -> Sink:
    return Sink(warehouse, PriceBook())


def count(warehouse: Warehouse, table: str) -> int:
    return int(warehouse.query(f"SELECT count() AS n FROM {table}")[0]["n"])


def assert_no_drift(warehouse: Warehouse) -> None:
    assert [drift for drift in rebuild.verify(warehouse) if not drift.is_zero] == []


def test_a_batch_written_twice_is_counted_once_in_rows_and_rollups(warehouse: Warehouse, sink: Sink) -> None:
    batch = batch_of(*(encode(request_id=f"r{n}", input_tokens=n) for n in range(100)), b"broken")
    sink.write(batch)
    sink.write(batch)
    assert (count(warehouse, "request_logs"), count(warehouse, "dead_letters")) == (100, 1)
    assert warehouse.query("SELECT sum(requests) AS n FROM rollup_user")[0]["n"] == 100
    assert_no_drift(warehouse)


def test_other_records_at_the_same_offsets_are_not_taken_for_duplicates(warehouse: Warehouse, sink: Sink) -> None:
    sink.write(batch_of(encode(request_id="old")))
    sink.write(batch_of(encode(request_id="new")))
    same_bytes_later = Batch("request-events", 0, [StoredRecord(0, encode(request_id="new"), HOUR_MS + 1)], HOUR_MS, 0)
    sink.write(same_bytes_later)
    assert count(warehouse, "request_logs") == 3


def test_a_batch_whose_views_failed_half_way_is_completed_by_the_retry(warehouse: Warehouse, sink: Sink) -> None:
    batch = batch_of(*(encode(request_id=f"r{n}", user_id=f"u{n % 7}") for n in range(50)))
    warehouse.command("ALTER TABLE rollup_user ADD CONSTRAINT broken CHECK requests > 1000")
    with pytest.raises(Exception, match="broken"):
        sink.write(batch)
    assert any(not drift.is_zero for drift in rebuild.verify(warehouse)) or count(warehouse, "request_logs") == 0
    warehouse.command("ALTER TABLE rollup_user DROP CONSTRAINT broken")
    sink.write(batch)
    assert count(warehouse, "request_logs") == 50
    assert_no_drift(warehouse)


def test_a_batch_that_spans_many_months_is_written_once(warehouse: Warehouse, sink: Sink) -> None:
    months = [f"{year}-{month:02}-01T00:00:00Z" for year in range(2015, 2100, 5) for month in range(1, 13)]
    batch = batch_of(*(encode(request_id=moment, timestamp=moment) for moment in months))
    sink.write(batch)
    sink.write(batch)
    assert count(warehouse, "request_logs") == len(months)
    assert_no_drift(warehouse)


def test_the_same_month_of_two_years_is_two_partitions(warehouse: Warehouse) -> None:
    values = [encode(request_id=str(year), timestamp=f"{year}-03-05T10:00:00Z") for year in (2025, 2026)]
    Sink(warehouse, PriceBook()).write(batch_of(*values))
    sql = "SELECT uniqExact(partition) AS partitions FROM system.parts WHERE active AND database = currentDatabase()"
    for table in ("request_logs", *(rollup.table for rollup in ROLLUPS)):
        found = warehouse.query(f"{sql} AND table = {{table:String}}", {"table": table})
        assert found == [{"partitions": 2}], table


@given(values=st.lists(event_bytes(), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=UNCHECKED)
def test_whatever_the_contract_accepts_clickhouse_takes(warehouse: Warehouse, sink: Sink, values: list[bytes]) -> None:
    before = count(warehouse, "request_logs") + count(warehouse, "dead_letters")
    sink.write(batch_of(*values, first=before))
    assert count(warehouse, "request_logs") + count(warehouse, "dead_letters") == before + len(values)


EVERY_FIELD: dict[str, Any] = {
    "request_id": "req/é😀'\"\\%", "timestamp": "2026-11-21T10:11:12.123456Z", "model_name": "gpt-4o", "status": "slow",
    "provider": "openai", "user_id": "u", "api_key_id": "k", "api_key_prefix": "ak", "api_key_hash": "h",
    "api_key_address": "a", "api_key_name": "n", "status_code": 200, "error_type": "e", "error_message": "m",
    "input_tokens": 10, "output_tokens": 5, "cached_input_tokens": 3, "cache_creation_input_tokens": 2,
    "thinking_tokens": 1, "usage": {"web_searches": 2, "x": 0.25}, "service_tier": "flex",
    "duration_ms": 7, "upstream_duration_ms": 6, "time_to_first_token_ms": 5,
    "request_headers": {"accept": "x", "cookie": "c"}, "request_body": {"a": [1, None]}, "response_headers": {"x": "y"},
    "response_body": "text\nwith lines", "response_body_raw": "data: {}", "llm_parameters": {"temperature": 0.5},
    "tags": ["a", "b"], 
    "metadata": {"env": "prod", "team": {"id": 5, "ok": True}, "since": "2024-01-01", "z": [1, "x"]},
    "prompt_id": 12, "prompt_version_number": 3, "prompt_name": "p", "input_variables": {"v": "w"},
    "tool_names": ["t"], "turn_count": 2, "tool_call_count": 1, "session_id": "s", "trace_id": "t",
}  # fmt: skip


def test_every_field_of_the_contract_is_stored(warehouse: Warehouse, sink: Sink) -> None:
    assert set(EVERY_FIELD) == set(RequestEvent.model_fields)
    sink.write(batch_of(json.dumps(EVERY_FIELD).encode(), first=41, partition=3))
    row = warehouse.query(
        "SELECT *, toJSONString(metadata) AS metadata_text, toString(timestamp) AS at FROM request_logs"
    )[0]
    payload = warehouse.query("SELECT * FROM request_payloads")[0]
    details = dict(zip(DETAIL_COLUMNS, json.loads(row["details"]), strict=True))
    assert details["metadata"] == row["metadata_text"]
    stored = {**row, **details, **payload, "timestamp": row["at"], "metadata": json.loads(details["metadata"])}
    assert {name: row[name] for name in details.keys() & row.keys() - {"metadata"}}.items() <= details.items()
    expected = {
        **EVERY_FIELD,
        "timestamp": "2026-11-21 10:11:12.123456",
        "prompt_id": "12",
        "usage": '{"web_searches":2,"x":0.25}',
        "request_headers": '{"accept":"x","cookie":"[redacted]"}',
        "request_body": '{"a":[1,null]}',
        "response_headers": '{"x":"y"}',
        "llm_parameters": '{"temperature":0.5}',
        "input_variables": '{"v":"w"}',
    }
    assert {name: stored[name] for name in expected} == expected
    assert (row["source_topic"], row["source_partition"], row["source_offset"]) == ("request-events", 3, 41)
    assert row["is_error"] is True


def test_absent_fields_are_empty_or_unknown_but_never_zero(warehouse: Warehouse, sink: Sink) -> None:
    sink.write(batch_of(encode()))
    row = warehouse.query("SELECT * FROM request_logs")[0]
    assert (row["user_id"], row["tags"], row["metadata"]) == ("", [], {})
    assert (row["input_tokens"], row["duration_ms"], row["status_code"], row["cost"]) == (None, None, None, None)
    assert row["is_error"] is False
    assert count(warehouse, "request_payloads") == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"status": "success", "status_code": 200}, False, id="success"),
        pytest.param({"status": "ERROR"}, True, id="status error in any case"),
        pytest.param({"status": "timeout"}, True, id="timeout"),
        pytest.param({"status": "blocked", "status_code": 403}, True, id="own word with an error code"),
        pytest.param({"status": "cached"}, False, id="own word"),
        pytest.param({"status": "success", "error_type": "partial"}, True, id="error type"),
        pytest.param({"status": "success", "status_code": 399}, False, id="redirect"),
    ],
)
def test_a_request_failed_if_any_of_three_fields_says_so(
    warehouse: Warehouse, sink: Sink, fields: dict[str, Any], expected: bool
) -> None:
    sink.write(batch_of(encode(**fields)))
    assert warehouse.query("SELECT is_error FROM request_logs")[0]["is_error"] is expected


def test_a_dead_letter_keeps_the_bytes_but_not_the_secrets(warehouse: Warehouse, sink: Sink) -> None:
    record = StoredRecord(
        9,
        b'{"request_headers": {"Authorization": "Bearer s3cret"}, \xff',
        headers=[("x-api-key", b"s3cret"), ("a", b"b")],
    )
    sink.write(Batch("request-events", 2, [record], HOUR_MS, 0))
    row = warehouse.query("SELECT *, hex(value) AS bytes FROM dead_letters")[0]
    assert bytes.fromhex(row["bytes"]) == b'{"request_headers": {"Authorization": "[redacted]"}, \xff'
    assert row["headers"] == [{"name": "x-api-key", "value": "[redacted]"}, {"name": "a", "value": "b"}]
    assert (row["reason"], row["source_partition"], row["source_offset"], row["key"]) == ("json_invalid", 2, 9, "key")
    assert row["record_timestamp"].timestamp() * 1000 == HOUR_MS


def test_a_large_dead_letter_is_cut_with_a_mark(warehouse: Warehouse, sink: Sink) -> None:
    sink.write(batch_of(b"x" * 3_000_000))
    row = warehouse.query(
        "SELECT length(value) AS kept, endsWith(value, '[truncated]') AS is_marked, * FROM dead_letters"
    )[0]
    assert MAX_DEAD_LETTER_BYTES < row["kept"] < MAX_DEAD_LETTER_BYTES + 100
    assert (row["is_marked"], row["value_bytes"], row["is_truncated"]) == (1, 3_000_000, True)


def test_no_secret_is_stored_anywhere(warehouse: Warehouse, sink: Sink) -> None:
    headers = {"authorization": "Bearer s3cret", "Set-Cookie": ["s3cret"], "x-api-key": {"a": "s3cret"}}
    sink.write(
        batch_of(encode(request_headers=headers, response_headers=headers), encode(request_headers=headers, status=5))
    )
    for table in ("request_logs", "request_payloads", "dead_letters"):
        rows = warehouse.query(f"SELECT * FROM {table}")
        assert rows
        assert "s3cret" not in str(rows)


CANARY = "canary-7Kq9"


def test_a_credential_in_any_shape_in_any_place_is_nowhere_on_the_disk(
    warehouse: Warehouse, sink: Sink, engine_url: str
) -> None:
    secret = f"sk-proj-{CANARY}-0123456789"
    shapes: list[Any] = [
        {"Authorization ": CANARY}, {"x-litellm-key": [CANARY]}, {"cookie2": {"a": CANARY}}, {"x-jwt": CANARY},
        {"h": [{"name": "x-api-key", "value": CANARY}]}, {"h": [["Helicone-Auth", CANARY]]}, {"x-note": secret},
        {"raw": f"GET /?api_key={CANARY}\r\nCookie: {CANARY}"}, {"x-note": f"Bearer {CANARY}"},
    ]  # fmt: skip
    valid = [encode(request_headers=shape, response_headers=shape) for shape in shapes]
    rejected = [encode(status=5, request_headers=shape, metadata=shape, request_body=shape) for shape in shapes]
    texts = [json.dumps(shape) for shape in shapes]
    rejected += [encode(request_headers=text) for text in texts] + [text[:-1].encode() for text in texts]
    records = [
        StoredRecord(n, value, headers=[("x-api-key", CANARY.encode()), ("a", secret.encode())])
        for n, value in enumerate([*valid, *rejected])
    ]
    sink.write(Batch("request-events", 0, records, HOUR_MS, 0))
    assert warehouse.query("SELECT count() AS n FROM dead_letters") == [{"n": len(rejected)}]
    for table in ("request_logs", "request_payloads", "dead_letters"):
        assert CANARY not in str(warehouse.query(f"SELECT toString(tuple(*)) AS everything FROM {table}"))
    if engine_url.startswith("chdb://"):
        # Whatever the engine wrote beside its tables, which are compressed.
        files = [path for path in Path(engine_url.removeprefix("chdb://")).rglob("*") if path.is_file()]
        assert files
        assert [path for path in files if CANARY.encode() in _content(path)] == []


def _content(path: Path) -> bytes:
    """Nothing for a file that a merge has removed since it was listed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@settings(max_examples=30, deadline=None, suppress_health_check=UNCHECKED)
@given(st.dictionaries(st.text(max_size=6), st.lists(st.text(max_size=6), min_size=1, max_size=3), max_size=5))
def test_every_key_of_an_answer_can_be_asked_for(
    warehouse: Warehouse, sink: Sink, answer: dict[str, list[str]]
) -> None:
    without_nul = {key: values for key, values in answer.items() if "\0" not in key + "".join(values)}
    wanted: dict[str, list[str]] = {}
    for key, values in without_nul.items():
        wanted.setdefault(key, []).extend(values)
    name = uuid.uuid4().hex
    sink.write(batch_of(encode(request_id=name, response_body=without_nul or {"a": ["b"]})))
    for key, values in (wanted or {"a": ["b"]}).items():
        found = warehouse.query(
            "SELECT getSubcolumn(output, concat({key:String}, '.:`Array(Nullable(String))`')) AS found, output_keys"
            " FROM request_logs WHERE request_id = {name:String}",
            {"key": key, "name": name},
        )[0]
        assert list(found["found"]) == values
        assert key in found["output_keys"]
