"""The Python client takes messages of the proto service, made with Google's protobuf or with Buf's."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import protobuf
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from api.connect.generated.agentrouter.insights.v1 import request_logs_pb
from router_insights import Client
from tests.support.checkout import ROOT

PACKAGE = "agentrouter.insights.v1"
MIDDLE = datetime(2026, 2, 1, 0, 0, 0, 123_456, tzinfo=UTC)
FILTERS = {"model_name": "gpt-5", "status_code": 200, "page_size": 7, "order_by": "duration_ms", "start_time": MIDDLE}


@pytest.fixture(scope="module")
def of_google(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The class of a message, of the proto file as its users compile it."""
    image = tmp_path_factory.mktemp("proto") / "image.binpb"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", "-o", image], cwd=ROOT / "proto", check=True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def of_buf(name: str) -> Any:
    return getattr(request_logs_pb, name)


@pytest.fixture(params=["google", "buf"])
def message(request: pytest.FixtureRequest, of_google: Callable[[str], Any]) -> Callable[..., Any]:
    """Makes a message of that name with these fields."""

    def make(name: str, **fields: Any) -> Any:
        plain = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in fields.items()}
        if request.param == "google":
            return json_format.ParseDict(plain, of_google(name)())
        return protobuf.message_from_json_value(of_buf(name), plain)

    return make


def test_a_message_asks_the_same_as_keywords(client: Client, message: Callable[..., Any]) -> None:
    ours = client.request_logs.query_request_logs(message("QueryRequestLogsRequest", **FILTERS))
    assert ours.logs
    assert ours == client.request_logs.query_request_logs(**FILTERS)  # type: ignore[arg-type]


def test_an_empty_message_asks_for_everything(client: Client, message: Callable[..., Any]) -> None:
    ours = client.request_logs.query_request_logs(message("QueryRequestLogsRequest"))
    assert ours == client.request_logs.query_request_logs()


def test_a_message_is_iterated_over(client: Client, message: Callable[..., Any]) -> None:
    filters = {"status": "error", "page_size": 50}
    ours = list(client.request_logs.iter_request_logs(message("QueryRequestLogsRequest", **filters)))
    assert len(ours) > 50
    assert ours == list(client.request_logs.iter_request_logs(status="error"))


def test_one_log_and_statistics_take_messages_too(client: Client, message: Callable[..., Any]) -> None:
    log = client.request_logs.get_request_log(message("GetRequestLogRequest", request_id="a/b c"))
    assert log == client.request_logs.get_request_log("a/b c")
    stats = client.request_logs.get_request_log_stats(
        message("GetRequestLogStatsRequest", group_by="user", metric="cost", end_time=MIDDLE)
    )
    assert stats.stats
    assert stats == client.request_logs.get_request_log_stats(group_by="user", metric="cost", end_time=MIDDLE)
