"""`insights replay`, `insights ingest` and `insights api` on a broker and a database that are not theirs."""

import gzip
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from cli.local_stack.process import free_port
from tests.support.insights import TIMEOUT_SECONDS, insights, query, start_insights, wait_until
from tests.support.kafka import read_topic

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


@contextmanager
def running(output: Path, command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service; it must end with 0 on SIGTERM."""
    process = start_insights(command, output=output, **settings)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=TIMEOUT_SECONDS) == 0, output.read_text()
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False).is_success
    except httpx2.TransportError:
        return False


def an_event(request_id: str, **fields: object) -> dict[str, object]:
    return {
        "request_id": request_id,
        "timestamp": "2026-01-31T12:00:00Z",
        "model_name": "m",
        "status": "success",
        **fields,
    }


async def test_replay_sends_a_trace_packed_or_not_with_the_same_ids(broker: str, topic: str, tmp_path: Path) -> None:
    lines = "".join(f"2023-11-16 18:15:46.{n:07d},{n},1\r\n" for n in range(1000))
    (tmp_path / "t.csv").write_text(f"{HEADER}\r\n{lines}")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    files = (tmp_path / "t.csv", tmp_path / "t.csv.gz")
    done = insights(
        *("replay", *files, "--format", "azure-llm", "--bootstrap-servers", broker), INSIGHTS_KAFKA_TOPIC=topic
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2,000 requests sent in ")
    records = await read_topic(broker, topic)
    sent = sorted(json.loads(record.value)["request_id"] for record in records)
    assert sent == sorted(2 * [f"t-{line:07d}" for line in range(2, 1002)])
    assert sum(json.loads(record.value)["input_tokens"] for record in records) == 2 * sum(range(1000))


async def test_replay_names_the_lines_that_it_leaves_out_and_exits_1(broker: str, topic: str, tmp_path: Path) -> None:
    events = [an_event("a"), an_event("b", input_tokens=-1), an_event("c")]
    (tmp_path / "e.ndjson").write_text("\n".join([*(json.dumps(event) for event in events), "{"]))
    done = insights(
        *("replay", tmp_path / "e.ndjson", "--format", "events", "--bootstrap-servers", broker),
        INSIGHTS_KAFKA_TOPIC=topic,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("2 requests sent in ")
    assert "e.ndjson line 2: input_tokens: Input should be greater than or equal to 0" in done.stderr
    assert "e.ndjson line 4: Invalid JSON" in done.stderr
    assert "2 lines were not requests and were left out" in done.stderr
    records = await read_topic(broker, topic)
    assert sorted(record.key for record in records) == [b"a", b"c"]


def test_replay_refuses_a_file_of_another_form(broker: str, topic: str, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(json.dumps(an_event("a")))
    done = insights(
        *("replay", tmp_path / "e.csv", "--format", "azure-llm", "--bootstrap-servers", broker),
        INSIGHTS_KAFKA_TOPIC=topic,
    )
    assert done.returncode == 1
    assert f"insights: e.csv: the first line must be {HEADER}" in done.stderr


async def test_replay_keeps_the_distances_of_the_trace_at_the_speed_asked_for(
    broker: str, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"{HEADER}\n2023-11-16 18:00:00,1,1\n2023-11-16 18:00:30,2,2\n")
    done = insights(
        *("replay", tmp_path / "t.csv", "--format", "azure-llm", "--speed", 20, "--bootstrap-servers", broker),
        INSIGHTS_KAFKA_TOPIC=topic,
    )
    assert done.returncode == 0, done.stderr
    first, second = sorted(record.timestamp for record in await read_topic(broker, topic))
    assert 1_450 <= second - first < 20_000


async def test_ctrl_c_ends_a_replay_once_what_it_took_is_in_kafka(broker: str, topic: str, tmp_path: Path) -> None:
    lines = [an_event(f"r-{number}", timestamp=1_790_000_000_000 + 60_000 * number) for number in range(100)]
    (tmp_path / "e.ndjson").write_text("\n".join(json.dumps(line) for line in lines))
    arguments = ("replay", tmp_path / "e.ndjson", "--format", "events", "--speed", "60", "--bootstrap-servers", broker)
    process = start_insights(*arguments, output=tmp_path / "output", INSIGHTS_KAFKA_TOPIC=topic)
    try:
        while len(await read_topic(broker, topic)) < 3:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=TIMEOUT_SECONDS) == 128 + signal.SIGINT
    finally:
        process.kill()
    keys = [record.key for record in await read_topic(broker, topic)]
    assert 3 <= len(keys) < 100
    assert len(set(keys)) == len(keys)
    assert "Traceback" not in (tmp_path / "output").read_text()


def test_ingest_and_api_serve_what_came_over_http_and_by_replay(broker: str, topic: str, tmp_path: Path) -> None:
    port, metrics_port = free_port(), free_port()
    settings = {
        "INSIGHTS_CLICKHOUSE_URL": f"chdb://{tmp_path}/clickhouse",
        "INSIGHTS_KAFKA_BOOTSTRAP_SERVERS": broker,
        "INSIGHTS_KAFKA_TOPIC": topic,
        "INSIGHTS_KAFKA_GROUP": topic,
        "INSIGHTS_KAFKA_SESSION_TIMEOUT_MS": "1500",
        "INSIGHTS_METRICS_PORT": str(metrics_port),
        "INSIGHTS_API_KEYS": "ak-test",
        "INSIGHTS_PORT": str(port),
    }
    assert insights("migrate", **settings).returncode == 0
    url, headers = f"http://127.0.0.1:{port}", {"authorization": "Bearer ak-test"}
    with running(tmp_path / "api.log", "api", **settings):
        wait_until(lambda: answers(f"{url}/readyz"))
        sent = httpx2.post(f"{url}/v1/events", headers=headers, json=an_event("over-http"), trust_env=False)
        assert (sent.status_code, sent.json()) == (202, {"accepted": 1})
        refused = httpx2.post(f"{url}/v1/events", headers=headers, json=an_event("x", status=5), trust_env=False)
        assert refused.status_code == 422
        assert refused.json()["details"] == [{"field": "status", "message": "Input should be a valid string"}]
        schema = httpx2.get(f"{url}/v1/events/schema", headers=headers, trust_env=False).json()
        assert "request_id" in schema["required"]
    (tmp_path / "e.ndjson").write_text(json.dumps(an_event("by-replay")))
    assert insights("replay", tmp_path / "e.ndjson", "--format", "events", **settings).returncode == 0
    with running(tmp_path / "ingest.log", "ingest", **settings):
        metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        wait_until(lambda: answers(metrics))
        wait_until(lambda: "insights_rows_total 2.0" in httpx2.get(metrics, trust_env=False).text)
    stored = query(tmp_path, "SELECT request_id FROM request_logs ORDER BY request_id")
    assert [row["request_id"] for row in stored] == ["by-replay", "over-http"]


def test_an_api_without_kafka_reads_and_refuses_events(tmp_path: Path) -> None:
    settings = {
        "INSIGHTS_CLICKHOUSE_URL": f"chdb://{tmp_path}/clickhouse",
        "INSIGHTS_API_KEYS": "ak-test",
        "INSIGHTS_PORT": str(free_port()),
    }
    url, headers = f"http://127.0.0.1:{settings['INSIGHTS_PORT']}", {"authorization": "Bearer ak-test"}
    assert insights("migrate", **settings).returncode == 0
    with running(tmp_path / "api.log", "api", **settings):
        wait_until(lambda: answers(f"{url}/readyz"))
        refused = httpx2.post(f"{url}/v1/events", headers=headers, json=an_event("r"), trust_env=False)
        assert refused.status_code == 503
        assert refused.json()["message"] == "This service is not connected to Kafka and takes no events."
        second = insights("api", **settings)
        assert second.returncode == 1
        assert f"insights: port {settings['INSIGHTS_PORT']} on 127.0.0.1 is taken by another program" in second.stderr
