"""Seeded random rows of request_logs and request_payloads as plain dicts, and their way into a warehouse.

Values are drawn so that what breaks queries happens often: equal timestamps, equal ids, ties, unknown values,
keys with quotes and other scripts, several months.
"""

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from aggregator.clickhouse.client import Warehouse

Row = dict[str, Any]

START = datetime(2026, 1, 30, 21, 7, 3, 250_000, tzinfo=UTC)
USERS = ("alice", "bob", "", 'o\'brien "x" \\ y', "Zoë 😀", "a/b?c&d=e%20+", "tab\tline\nend")
MODELS = ("gpt-5", "gpt-5-mini", "claude-opus-5", "gemini-3", "meta/llama: 'big'")
KEYS = ("key-1", "key-2", "key-3", "")
STATUSES = ("success", "success", "SUCCESS", "error", "Timeout", "throttled")

_TEXT = pa.string()
_INSTANT_US, _INSTANT_MS = pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC")
_COUNT, _DOLLARS = pa.uint32(), pa.decimal128(18, 12)
COSTS = (
    "cost",
    "input_tokens_cost",
    "cached_input_tokens_cost",
    "cache_creation_input_tokens_cost",
    "output_tokens_cost",
    "other_cost",
)
_COST_FIELDS = tuple(f"{name}{suffix}" for name in COSTS for suffix in ("", "_before_fee"))
LOG_SCHEMA = pa.schema(
    {
        "timestamp": _INSTANT_US,
        "request_id": _TEXT,
        "created_at": _INSTANT_MS,
        "source_topic": _TEXT,
        "source_partition": pa.uint32(),
        "source_offset": pa.uint64(),
        "generation": pa.uint32(),
        "provider": _TEXT,
        "model_name": _TEXT,
        "user_id": _TEXT,
        "api_key_id": _TEXT,
        "api_key_prefix": _TEXT,
        "api_key_hash": _TEXT,
        "api_key_address": _TEXT,
        "api_key_name": _TEXT,
        "status": _TEXT,
        "status_code": pa.uint16(),
        "error_type": _TEXT,
        "error_message": _TEXT,
        "is_error": pa.bool_(),
        "input_tokens": _COUNT,
        "output_tokens": _COUNT,
        "cached_input_tokens": _COUNT,
        "cache_creation_input_tokens": _COUNT,
        "thinking_tokens": _COUNT,
        "usage": _TEXT,
        "usage_source": _TEXT,
        "service_tier": _TEXT,
        "duration_ms": _COUNT,
        "upstream_duration_ms": _COUNT,
        "time_to_first_token_ms": _COUNT,
        **dict.fromkeys((f"{name}{suffix}" for name in COSTS for suffix in ("", "_fee")), _DOLLARS),
        "fee_rate": pa.decimal128(9, 6),
        "price_id": _TEXT,
        "price_version": _TEXT,
        "tags": pa.list_(_TEXT),
        "metadata": _TEXT,
        "prompt_id": _TEXT,
        "prompt_version_number": _COUNT,
        "prompt_name": _TEXT,
        "tool_names": pa.list_(_TEXT),
        "turn_count": _COUNT,
        "tool_call_count": _COUNT,
        "session_id": _TEXT,
        "trace_id": _TEXT,
        "storage_location": _TEXT,
        "storage_row_index": _COUNT,
        "storage_batch_id": _TEXT,
        "use_object_storage": pa.bool_(),
    }
)
KEY_NAMES = ("timestamp", "request_id", "created_at", "source_partition", "source_offset")
PAYLOAD_NAMES = (
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
    "response_body_raw",
    "llm_parameters",
    "input_variables",
)
OWNER_NAMES = ("user_id", "api_key_id")
PAYLOAD_SCHEMA = pa.schema(
    [LOG_SCHEMA.field(name) for name in KEY_NAMES + OWNER_NAMES] + [(name, _TEXT) for name in PAYLOAD_NAMES]
)


def folded(status: str) -> str:
    """As filters compare it and groups have it: ASCII letters in lower case."""
    return "".join(chr(ord(letter) + 32) if "A" <= letter <= "Z" else letter for letter in status)


def _maybe(rng: random.Random, value: Any, unknown: float = 0.2) -> Any:
    return None if rng.random() < unknown else value


def _tokens(rng: random.Random) -> Row:
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_creation_input_tokens", "thinking_tokens")
    return {name: _maybe(rng, rng.choice((0, 1, 7, 7, 1200, rng.randrange(10**6), 4 * 10**9))) for name in names}


def _costs(rng: random.Random) -> Row:
    if rng.random() < 0.2:
        return dict.fromkeys(_COST_FIELDS)
    return {name: Decimal(rng.randrange(10**13)).scaleb(-12) for name in _COST_FIELDS}


def _sometimes_without_usage(rng: random.Random) -> Row:
    """Nobody said what it used, so it has no cost."""
    if rng.random() < 0.85:
        return {}
    tokens = dict.fromkeys(_tokens(rng))
    return {**tokens, **dict.fromkeys(_COST_FIELDS), "usage_source": "missing"}


def _times(rng: random.Random, start: datetime, span: timedelta) -> Row:
    """Whole milliseconds mostly, and one of a few moments often, so that timestamps repeat."""
    moment = start + span * rng.choice((rng.random(), rng.random(), rng.randrange(10) / 10))
    if rng.random() < 0.7:
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    created_at = moment + timedelta(milliseconds=rng.choice((0, 5, 5, 900)))
    return {"timestamp": moment, "created_at": created_at.replace(microsecond=created_at.microsecond // 1000 * 1000)}


def _durations(rng: random.Random) -> Row:
    duration_ms = _maybe(rng, rng.choice((0, 100, 100, 250, rng.randrange(1, 60_000))))
    return {
        "duration_ms": duration_ms,
        "upstream_duration_ms": _maybe(rng, rng.randrange(60_000)),
        "time_to_first_token_ms": _maybe(rng, rng.randrange(5_000)),
    }


def _outcome(rng: random.Random) -> Row:
    status = rng.choice(STATUSES)
    is_error = folded(status) != "success"
    return {
        "status": status,
        "is_error": is_error,
        "status_code": _maybe(rng, rng.choice((429, 500)) if is_error else 200),
        "error_type": "upstream" if is_error else "",
        "error_message": "it broke: \"why?\" — 'because'" if is_error else "",
    }


def _who(rng: random.Random) -> Row:
    return {
        "user_id": rng.choice(USERS),
        "api_key_id": rng.choice(KEYS),
        "api_key_prefix": "sk-abc",
        "api_key_hash": f"{rng.randrange(4):x}",
        "api_key_address": "10.0.0.1",
        "api_key_name": "batch jobs",
        "model_name": rng.choice(MODELS),
        "provider": rng.choice(("openai", "anthropic", "")),
        "session_id": rng.choice(("", "session-1")),
        "trace_id": rng.choice(("", "trace-1")),
    }


def _rest(rng: random.Random) -> Row:
    return {
        "source_topic": "request-events",
        "generation": 0,
        "usage": "",
        "usage_source": "reported",
        "service_tier": "",
        "fee_rate": Decimal("0.050000"),
        "price_id": "openai/gpt-5 input=1.25 cached_input=0.125 cache_creation_input=1.25 output=10",
        "price_version": "2026-01-15",
        "tags": rng.choice(([], ["a"], ["a", "b'c"])),
        "metadata": rng.choice(({}, {"team": "search"}, {"n": 3, "deep": {"x": [1, 2]}, "day": "2026-01-01"})),
        "prompt_id": rng.choice(("", "17")),
        "prompt_version_number": _maybe(rng, 3),
        "prompt_name": "greeting",
        "tool_names": rng.choice(([], ["search"])),
        "turn_count": _maybe(rng, 2),
        "tool_call_count": _maybe(rng, 1),
        "storage_location": "",
        "storage_row_index": None,
        "storage_batch_id": "",
        "use_object_storage": False,
    }


def random_rows(
    seed: int, count: int, start: datetime = START, span: timedelta = timedelta(days=3), first_offset: int = 0
) -> list[Row]:
    """`count` rows of request_logs, the same for the same arguments; (partition, offset) is unique."""
    rng = random.Random(seed)
    return [
        {
            **_times(rng, start, span),
            # Few ids, so that some rows share theirs, even at the same moment.
            "request_id": f"req-{rng.randrange(max(1, count * 2 // 3))}",
            "source_partition": rng.randrange(3),
            "source_offset": first_offset + number,
            **_who(rng),
            **_outcome(rng),
            **_tokens(rng),
            **_durations(rng),
            **_costs(rng),
            **_rest(rng),
            **_sometimes_without_usage(rng),
        }
        for number in range(count)
    ]


def why_unpriced(row: Row) -> str:
    """In words of the tests: whose work it is that a row has no cost; '' if it has one."""
    if row["cost"] is not None:
        return ""
    if row["input_tokens"] is not None or row["output_tokens"] is not None or row["usage"]:
        return "no_price"
    return "failed_without_usage" if row["is_error"] else "no_usage"


def payload_of(row: Row) -> Row:
    """A payload whose texts name its row; object columns as JSON text."""
    name = f"{row['source_partition']}/{row['source_offset']}"
    return {
        **{key: row[key] for key in KEY_NAMES + OWNER_NAMES},
        "request_headers": json.dumps({"x-row": name, "n": [1, {"é": None}]}, ensure_ascii=False),
        "request_body": f'{{"row": "{name}"}}',
        "response_headers": "",
        "response_body": f"plain {name} \\ 'text'\n😀",
        "response_body_raw": f"data: {name}",
        "llm_parameters": json.dumps({"temperature": 0.2}),
        "input_variables": "",
    }


def _fees(row: Row) -> Row:
    """What is stored of a row's costs before fees."""
    known = (name for name in COSTS if None not in (row.get(name), row.get(f"{name}_before_fee")))
    return {f"{name}_fee": row[name] - row[f"{name}_before_fee"] for name in known}


def arrow_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    texts = [{**row, **_fees(row), "metadata": json.dumps(row.get("metadata", {}))} for row in rows]
    return pa.Table.from_pylist(texts, schema=schema)


def insert_rows(
    warehouse: Warehouse, rows: Sequence[Row], payloads: Sequence[Row] = (), schema: pa.Schema = LOG_SCHEMA
) -> None:
    """Insert once; the token names the offsets."""
    token = f"{min(row['source_offset'] for row in rows)}-{max(row['source_offset'] for row in rows)}"
    warehouse.insert("request_logs", arrow_of(rows, schema), token)
    if payloads:
        warehouse.insert("request_payloads", arrow_of(payloads, PAYLOAD_SCHEMA), token)
