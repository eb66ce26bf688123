"""Rows for tests of request analytics: events that went through Kafka and a worker, and the API over them."""

import asyncio
import contextlib
import json
import random
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from starlette.testclient import TestClient

from aggregator.clickhouse.client import Warehouse
from aggregator.clickhouse.migrate import migrate
from ingest.consumer.worker import Worker
from ingest.settings import IngestSettings
from ingest.topics.create import create_topics
from tests.support.api import client_of
from tests.support.kafka import PARTITIONS, PATIENCE_SECONDS, stack
from tests.support.rows import Row

Event = dict[str, Any]

# What makes the costs of the contract's example logs, in dollars per million tokens.
PRICES = """
prices:
  - {model: gpt-4o, input: 50, output: 100}
  - {model: gpt-4o-mini, input: 10, output: 50}
  - {model: claude-sonnet-4-6, input: 200, output: 200, per_request: 0.03}
"""


def _chat(answer: Any, question: str = "What is the refund policy?", **message: Any) -> Event:
    """Bodies of an OpenAI chat completion."""
    return {
        "request_body": {"model": "m", "messages": [{"role": "user", "content": question}]},
        "response_body": {"choices": [{"message": {"role": "assistant", "content": answer, **message}}]},
    }


def _call(name: str, arguments: Any) -> Event:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


# Section 8 of the contract.
EXAMPLES: list[Event] = [
    {"request_id": "1001", "model_name": "gpt-4o", "provider": "openai", "input_tokens": 100, "output_tokens": 50,
     "duration_ms": 1000, "timestamp": "2025-06-01T10:00:00Z", "status": "SUCCESS", "tags": ["production"],
     "metadata": {"environment": "prod", "user_id": "u1"}, **_chat("Our refund policy is 30 days.")},
    {"request_id": "1002", "model_name": "gpt-4o", "provider": "openai", "input_tokens": 200, "output_tokens": 100,
     "duration_ms": 2000, "timestamp": "2025-06-01T12:00:00Z", "status": "SUCCESS", "tags": ["production", "batch"],
     "metadata": {"environment": "prod", "user_id": "u2"},
     **_chat(json.dumps({"result": {"status": "approved", "score": 0.95}}))},
    {"request_id": "1003", "model_name": "claude-sonnet-4-6", "provider": "anthropic", "input_tokens": 300,
     "output_tokens": 150, "duration_ms": 6000, "timestamp": "2025-06-02T09:00:00Z", "status": "ERROR",
     "error_type": "PROVIDER_TIMEOUT", "tags": ["staging"], "metadata": {"environment": "staging", "user_id": "u1"},
     **_chat("")},
    {"request_id": "1004", "model_name": "claude-sonnet-4-6", "provider": "anthropic", "input_tokens": 400,
     "output_tokens": 200, "duration_ms": 3000, "timestamp": "2025-06-02T18:00:00Z", "status": "SUCCESS",
     "tags": ["production"], "metadata": {"environment": "prod", "flag": True},
     **_chat(None, tool_calls=[_call("search_database", {"query": "active users", "limit": 10}),
                               _call("send_email", {})])},
    {"request_id": "1005", "model_name": "gpt-4o-mini", "provider": "openai", "input_tokens": 50, "output_tokens": 10,
     "duration_ms": 500, "timestamp": "2025-06-04T00:00:00Z", "status": "SUCCESS", **_chat("[1, 2, 3]")},
]  # fmt: skip

# Texts that break what is not bound or not escaped.
ODD_TEXTS = (
    "",
    'o\'brien "x" \\ y',
    "100%",
    "a_b%",
    "Zoë 😀",
    "ÉCOLE",
    "école",
    "tab\tline\nend",
    "{f0:String}",
    "null",
    "42",
    "true",
)
KEYS = ("team", "n", "flag", "ratio", "deep.key", "list", "we ird", "naïve", "a'b\"`\\%", "mixed")
START = datetime(2026, 3, 20, tzinfo=UTC)


def _maybe(rng: random.Random, found: Any) -> Any:
    return found if rng.random() < 0.8 else None


def _metadata(rng: random.Random) -> Event:
    every = {
        "team": rng.choice(("search", "ads", *ODD_TEXTS)),
        "n": rng.choice((0, 1, 42, -7, 2**53 + 1)),
        "flag": rng.choice((True, False, "true", "false")),
        "ratio": rng.choice((0.5, 0.1, 1e-7, 1e22, 42.0)),
        "deep": {"key": rng.choice(("x", "y", 1))},
        "list": rng.choice(([], ["a", "b"], ["a", 1, None, True, "é\"'\\"], [42])),
        "we ird": rng.choice(("x", 2)),
        "naïve": "ï",
        "a'b\"`\\%": rng.choice(("100%", "\\")),
        "mixed": rng.choice((None, "42", 42, 42.0, [42, "42"])),
    }
    return {key: found for key, found in every.items() if rng.random() < 0.5}


def _bodies(rng: random.Random) -> Event:
    answer = rng.choice(
        (
            "Hello wonderful world",
            "don't PANIC: 100% Zoë 😀",
            "Sorry, I can't do that.",
            "I am not sure.",
            "",
            json.dumps({"result": {"status": rng.choice(("approved", "denied")), "score": 0.95, "ok": True, "n": 42}}),
            json.dumps({"items": [{"name": "a"}, {"name": "b'c"}], "we ird": "\\", "empty": [], "none": None}),
            "[1, 2, 3]",
        )
    )
    calls = [_call(rng.choice(("search", "send_email")), {"query": "active users", "limit": rng.choice((10, 20))})]
    question = rng.choice(("What is the refund policy?", "Thanks, perfect!", "It is still broken", "ÉCOLE"))
    return rng.choice(({}, _chat(answer), _chat(answer, question), _chat(None, tool_calls=calls * rng.choice((1, 2)))))


def random_event(rng: random.Random, number: int) -> Event:
    """An event of the second half of March 2026, in which New York and Berlin change their clocks."""
    moment = START + timedelta(days=12) * rng.choice((rng.random(), rng.randrange(12) / 12))
    prompt: Event = rng.choice(({}, {"prompt_id": rng.choice(("17", "greet 'em"))}))
    if prompt:
        prompt["input_variables"] = rng.choice(({"name": "Zoë", "deep": {"list": ["a", 1]}}, {"name": 42}, {}))
        prompt["prompt_version_number"] = _maybe(rng, rng.randrange(4))
    event = {
        "request_id": f"random-{number}",
        "timestamp": moment.isoformat(),
        "model_name": rng.choice(("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-6", "unknown model's")),
        "provider": rng.choice(("openai", "anthropic", "")),
        "status": rng.choice(("success", "SUCCESS", "error", "throttled", "ÉCHEC")),
        "error_type": rng.choice(("", "PROVIDER_TIMEOUT", "PROVIDER_ERROR")),
        "user_id": rng.choice(("alice", "bob", *ODD_TEXTS)),
        "api_key_id": rng.choice(("key-1", "key-2", "")),
        "session_id": rng.choice(("", "s-1", "s-2")),
        "trace_id": rng.choice(("", "trace")),
        "input_tokens": _maybe(rng, rng.choice((0, 1, 7, 1200, rng.randrange(100_000)))),
        "output_tokens": _maybe(rng, rng.choice((0, 1, 7, rng.randrange(9_000)))),
        "thinking_tokens": rng.choice((None, 0, 5)),
        "cached_input_tokens": rng.choice((None, 0)),
        "duration_ms": _maybe(rng, rng.choice((0, 100, 100, 250, rng.randrange(60_000)))),
        "turn_count": _maybe(rng, rng.randrange(5)),
        "tool_call_count": _maybe(rng, rng.randrange(3)),
        "tags": rng.choice(([], ["a"], ["a", "b'c"], ["b'c", "é", "100%", "\\", ""])),
        "metadata": _metadata(rng),
        **prompt,
        **_bodies(rng),
    }
    if event["input_tokens"]:
        event["cached_input_tokens"] = rng.choice((None, 1, event["input_tokens"]))
    if rng.random() < 0.3:
        event["tool_names"] = rng.choice(([], ["search"], ["search", "send 'em"]))
    return {name: found for name, found in event.items() if found is not None}


def events(count: int) -> list[Event]:
    """The contract's examples, `count` random events, and one from either end of time."""
    rng = random.Random(7)
    ends = [
        {"request_id": f"end-{n}", "timestamp": moment, "model_name": "gpt-4o", "status": "success", "duration_ms": 5}
        for n, moment in enumerate(("2015-01-01T00:00:00Z", "2099-12-31T23:59:59.999999Z"))
    ]
    return [*EXAMPLES, *(random_event(rng, number) for number in range(count)), *ends]


async def _through_kafka(broker: str, warehouse: Warehouse, sent: list[Event], prices: Path) -> None:
    topic = f"analytics-{uuid.uuid4().hex[:12]}"
    await create_topics(broker, {topic: PARTITIONS}, timeout_seconds=PATIENCE_SECONDS)
    async with AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=False) as producer:
        for event in sent:
            await producer.send(topic, json.dumps(event).encode(), key=event["request_id"].encode())
    settings = IngestSettings(
        kafka_bootstrap_servers=broker,
        kafka_topic=topic,
        kafka_group=topic,
        kafka_session_timeout_ms=1000 if stack() == "embedded" else 6000,
        flush_seconds=0.2,
        metrics_port=0,
        prices_file=prices,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(settings, warehouse).run(stop))
    counted = "SELECT (SELECT count() FROM request_logs) + (SELECT count() FROM dead_letters) AS n"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while warehouse.query(counted)[0]["n"] < len(sent):
            if task.done():
                task.result()
            await asyncio.sleep(0.05)
    stop.set()
    await task


READ = """
SELECT request_logs.*, toJSONString(metadata) AS metadata, toJSONString(output) AS output,
    toJSONString(variables) AS variables, payloads.input_text AS input_text, payloads.output_text AS output_text
FROM request_logs LEFT JOIN request_payloads AS payloads USING (timestamp, request_id)
ORDER BY timestamp, request_id
"""


def _read(warehouse: Warehouse) -> list[Row]:
    rows = warehouse.query(READ)
    for row in rows:
        row["timestamp"] = row["timestamp"].replace(tzinfo=UTC)
        for name in ("metadata", "output", "variables"):
            row[name] = json.loads(row[name] or "{}")
    return rows


@dataclass(frozen=True)
class Analytics:
    """The API, and the rows behind it as ClickHouse has them."""

    client: TestClient
    warehouse: Warehouse
    rows: list[Row]

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        # Not the client's own JSON, which cannot spell half a character.
        headers = {"Content-Type": "application/json"}
        response = self.client.post(f"/api/public/v2/requests/{path}", content=json.dumps(body), headers=headers)
        assert response.status_code == status, response.text
        return response.json()

    def charts(self, *charts: dict[str, Any], **others: Any) -> list[Any]:
        answer = self.post("analytics/custom-analytics", {"customCharts": list(charts), **others})
        return list(answer["customCharts"])


@contextlib.contextmanager
def analytics_over(broker: str, engine_url: str, sent: list[Event]) -> Iterator[Analytics]:
    warehouse = Warehouse(engine_url, database=f"test_{uuid.uuid4().hex[:12]}")
    migrate(warehouse)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as prices:
        prices.write(PRICES)
        prices.flush()
        asyncio.run(_through_kafka(broker, warehouse, sent, Path(prices.name)))
    assert warehouse.query("SELECT reason FROM dead_letters") == []
    with client_of(warehouse) as client:
        yield Analytics(client, warehouse, _read(warehouse))
    warehouse.command(f"DROP DATABASE {warehouse.database}")
    warehouse.close()


@pytest.fixture(scope="session")
def examples(broker: str, engine_url: str) -> Iterator[Analytics]:
    """The five logs of the contract's examples."""
    with analytics_over(broker, engine_url, EXAMPLES) as found:
        yield found


@pytest.fixture(scope="session")
def analytics(broker: str, engine_url: str) -> Iterator[Analytics]:
    """The examples and 400 random logs, with everything odd that a gateway may send."""
    with analytics_over(broker, engine_url, events(400)) as found:
        yield found
