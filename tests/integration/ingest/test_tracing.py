"""Spans: of a batch on its way to ClickHouse, of a request, and over the wire where variables ask for them."""

import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aggregator.clickhouse.client import Warehouse
from api import middleware
from cli.serving import ServiceError
from cli.tracing import is_configured
from ingest.consumer import batch_writer, commits, sink, worker
from tests.integration.ingest.test_event_publisher import emitter
from tests.integration.ingest.test_sink import encode
from tests.integration.ingest.test_worker import make_settings, running, until
from tests.support.api import client_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHILD = """
from opentelemetry.trace import get_tracer
from cli.tracing import traced
with traced("insights-ingest"):
    with get_tracer("test").start_as_current_span("batch") as span:
        print(span.is_recording())
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the worker and the API record, though the process's own provider is none."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for module in (batch_writer, commits, sink, middleware):
        monkeypatch.setattr(module, "TRACER", provider.get_tracer(module.__name__))
    yield exporter
    provider.shutdown()


def families(finished: tuple[ReadableSpan, ...]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Names and attributes of spans by the name of their parent, in the order they began."""
    names = {span.context.span_id: span.name for span in finished if span.context}
    found: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for span in sorted(finished, key=lambda each: each.start_time or 0):
        parent = names.get(span.parent.span_id, "elsewhere") if span.parent else ""
        found[parent].append((span.name, dict(span.attributes or {})))
    return found


@pytest.mark.parametrize("topic", [1], indirect=True)
async def test_a_batch_is_one_trace_of_its_steps(
    broker: str, topic: str, warehouse: Warehouse, spans: InMemorySpanExporter
) -> None:
    values = [encode(request_id=f"r{number}", request_body="hi") for number in range(20)] + [b"{"]
    async with emitter(broker, topic) as events:
        await events.deliver([(b"k", value) for value in values])

    def is_confirmed() -> bool:
        return any(span.name == "commit" for span in spans.get_finished_spans())

    async with running(worker.Worker(make_settings(broker, topic, flush_seconds=1.0), warehouse)) as task:
        await until(is_confirmed, task)
    found = families(spans.get_finished_spans())
    [(_, batch)] = [each for each in found[""] if each[0] == "batch"]
    assert batch["messaging.destination.name"] == topic
    assert batch["messaging.destination.partition.id"] == "0"
    assert batch["messaging.batch.message_count"] == 21
    assert (batch["insights.first_offset"], batch["insights.last_offset"]) == (0, 20)
    assert batch["insights.batch"].startswith(f"{topic}/0/0-20/")
    assert [name for name, _ in found["batch"]] == ["fetch", "plan", "decode", "price", *["insert"] * 3]
    inserts = [(told["db.collection.name"], told["insights.rows"]) for name, told in found["batch"] if name == "insert"]
    assert inserts == [("dead_letters", 1), ("request_payloads", 20), ("request_logs", 20)]
    assert ("commit", {}) in found[""]


def test_a_request_is_a_span_by_its_route_and_of_who_asked(warehouse: Warehouse, spans: InMemorySpanExporter) -> None:
    with client_of(warehouse) as client:
        client.get("/v1/request-logs?user_id=secret", headers={"traceparent": PARENT, "X-Request-ID": "mine"})
        client.get("/v1/request-logs/an-id-of-somebody")
    listing, lookup = spans.get_finished_spans()
    assert listing.name == "GET /v1/request-logs"
    assert listing.parent is not None
    assert f"{listing.parent.trace_id:032x}" == PARENT.split("-")[1]
    assert dict(listing.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/request-logs",
        "http.response.status_code": 200,
        "insights.request_id": "mine",
    }
    assert lookup.name == "GET /v1/request-logs/{request_id:path}"
    assert lookup.attributes is not None
    assert lookup.attributes["http.response.status_code"] == 404
    assert "secret" not in listing.to_json()
    assert "somebody" not in lookup.to_json()


class Collector(BaseHTTPRequestHandler):
    """Takes what an OTLP exporter sends."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def run_child(**variables: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, capture_output=True, text=True, env=clean | variables, check=True, timeout=120)
    return done.stdout.strip()


def test_spans_go_to_a_collector_when_variables_name_one() -> None:
    Collector.received = []
    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert run_child(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}") == "True"
    finally:
        server.shutdown()
        server.server_close()
    [(path, body)] = Collector.received
    assert path == "/v1/traces"
    [sent] = ExportTraceServiceRequest.FromString(body).resource_spans
    told = {attribute.key: attribute.value.string_value for attribute in sent.resource.attributes}
    assert told["service.name"] == "insights-ingest"
    assert [span.name for span in sent.scope_spans[0].spans] == ["batch"]


@pytest.mark.parametrize("off", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_without_them_nothing_is_recorded(off: dict[str, str]) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} if off else {}
    assert run_child(**endpoint, **off) == "False"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "only otlp"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "only http/protobuf"),
    ],
)
def test_what_is_asked_for_and_not_there_is_an_error(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        is_configured(environ)
