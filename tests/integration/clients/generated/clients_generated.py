"""Clients that strangers generate from /openapi.json get the answers that curl gets (`make clients-generated`).

Each generator makes a client, which is built, and asks a running stack each question once.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cli.local_stack.process import UpProcess
from tests.integration.clients.generated.generators import GENERATORS, Generator, Tools
from tests.support.insights import wait_until

# Sums of tokens past 32 bits, text and nulls in bodies, an id that must be encoded.
EVENTS: list[dict[str, Any]] = [
    {
        "request_id": "call/1 ä", "timestamp": "2026-11-20T09:30:00.123456Z", "model_name": "gpt-4o",
        "provider": "openai", "user_id": "ada", "status": "success", "status_code": 200, "input_tokens": 1200,
        "cached_input_tokens": 1000, "output_tokens": 300, "duration_ms": 1840, "tags": ["chat"],
        "metadata": {"team": {"name": "search"}, "n": 3}, "response_body": "plain text",
        "request_body": {"temperature": None, "messages": [{"role": "user", "content": "Hi"}]},
    },
    {
        "request_id": "call-2", "timestamp": "2026-11-20T10:31:00Z", "model_name": "claude-sonnet-4-5",
        "provider": "anthropic", "user_id": "ada", "status": "error", "status_code": 429, "error_type": "rate_limit",
        "duration_ms": 95,
    },
    *(
        {
            "request_id": f"large-{number}", "timestamp": "2026-11-21T11:32:00Z", "model_name": "gpt-4o",
            "provider": "openai", "user_id": "ada", "status": "success", "input_tokens": 999_999_999,
            "output_tokens": 999_999_999 - number,
        }
        for number in range(3)
    ),
]  # fmt: skip
OF_ADA = {"field": "user_id", "operator": "is", "value": "ada"}
MANY_OR_FAILED = {
    "logic": "OR",
    "filters": [
        {"field": "input_tokens", "operator": "gte", "value": 100},
        {"field": "status", "operator": "in", "value": ["error"]},
    ],
}
CHARTS = {
    "filter_group": {"logic": "AND", "filters": [OF_ADA, MANY_OR_FAILED]},
    "customCharts": [
        {"id": "cost", "metric": "sum", "metricField": "cost", "groupByField": "engine"},
        {
            "id": "p95", "chartType": "line", "metric": "percentile", "percentile": 95, "metricField": "latency_ms",
            "timeSeries": True,
        },
    ],
}  # fmt: skip
SEARCH = {
    "filter_group": {"filters": [OF_ADA]},
    "sort_by": "input_tokens",
    "sort_order": "asc",
    "include_prompt_name": True,
}
SENT: dict[str, Any] = {
    "timestamp": "2026-11-22T10:31:00.500Z", "model_name": "gpt-4o", "provider": "openai", "user_id": "sender",
    "status": "success", "input_tokens": 7, "usage": {"web_searches": 2}, "metadata": {"team": "search"}, "tags": ["a"],
    "request_body": {"messages": []},
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class Service:
    """A running stack, asked with curl."""

    def __init__(self, stack: UpProcess) -> None:
        self.url, self.key = stack.url, stack.api_key

    def curl(self, path: str, body: Any = None) -> Any:
        command = ["curl", "-sS", "--fail-with-body", f"{self.url}{path}", "-H", f"Authorization: Bearer {self.key}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    def has(self, request_id: str) -> bool:
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", self._log(request_id)]
        done = subprocess.run([*command, "-H", f"Authorization: Bearer {self.key}"], capture_output=True, check=True)
        return done.stdout == b"200"

    def _log(self, request_id: str) -> str:
        return f"{self.url}/v1/request-logs/{quote(request_id, safe='')}"

    def send(self, event: dict[str, Any]) -> None:
        assert self.curl("/v1/events", event) == {"accepted": 1}
        wait_until(lambda: self.has(event["request_id"]))


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with UpProcess(tmp_path_factory.mktemp("clients") / "data") as stack:
        service = Service(stack)
        for event in EVENTS:
            service.send(event)
        service.send(SENT | {"request_id": "sent by curl"})
        yield service


@pytest.fixture(scope="module")
def document(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_text(json.dumps(service.curl("/openapi.json")))
    return path


def normal(value: Any, fraction: int = 6) -> Any:
    """JSON without nulls, which some clients leave out, and with times as numbers, which each writes its own way."""
    if isinstance(value, dict):
        return {name: normal(item, fraction) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [normal(item, fraction) for item in value]
    if isinstance(value, str) and TIME.fullmatch(value):
        moment = datetime.fromisoformat(value)
        return moment.replace(microsecond=moment.microsecond // 10 ** (6 - fraction)).isoformat()
    return value


def test_the_document_is_valid_for_a_second_validator(tools: Tools, document: Path, tmp_path: Path) -> None:
    told = tools.node("redocly", "lint", document, "--format", "json", cwd=tmp_path, REDOCLY_TELEMETRY="off")
    assert json.loads(told)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.name)
def test_a_generated_client_gets_the_answers_that_curl_gets(
    generator: Generator, tools: Tools, service: Service, document: Path, tmp_path: Path
) -> None:
    event = SENT | {"request_id": f"sent by {generator.name}"}
    asked = json.dumps({"charts": CHARTS, "search": SEARCH, "event": event})
    answers = json.loads(generator.answers(tools, document, tmp_path, URL=service.url, KEY=service.key, ASKED=asked))
    expected = {
        "query": service.curl("/v1/request-logs?user_id=ada&page_size=2&order_by=duration_ms"),
        "get": service.curl(f"/v1/request-logs/{quote('call/1 ä', safe='')}"),
        "stats": service.curl("/v1/request-logs/stats?user_id=ada&group_by=model&metric=cost"),
        "charts": service.curl("/api/public/v2/requests/analytics/custom-analytics", CHARTS),
        "search": service.curl("/api/public/v2/requests/search", SEARCH),
        "events": {"accepted": 1},
    }
    assert len(expected["query"]["logs"]) == 2
    assert expected["stats"]["total_output_tokens"] > 2**31
    for question, answer in expected.items():
        assert normal(answers[question], generator.fraction) == normal(answer, generator.fraction), question

    wait_until(lambda: service.has(event["request_id"]))
    by_curl, by_client = (
        service.curl(f"/v1/request-logs/{quote(name)}") for name in ("sent by curl", event["request_id"])
    )
    of_the_sending = {"id", "request_id", "created_at"}
    assert {name for name in by_curl if by_curl[name] != by_client[name]} <= of_the_sending
