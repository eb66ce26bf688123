"""The proto file: its fields are those of the REST answers, and the committed code is what it generates."""

import filecmp
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf.descriptor import FieldDescriptor
from pydantic import BaseModel

from api.connect.generated.agentrouter.insights.v1 import request_logs_pb
from api.connect.methods import METHODS, PACKAGE
from api.request_logs.parameters import LogParameters, StatsParameters
from api.request_logs.schemas import LogPage, RequestLog, StatsAnswer, StatsGroup
from tests.support.checkout import ROOT
from tests.support.connect import SERVICES, message_of

PROTO = ROOT / "proto"
GENERATED = ROOT / "api/connect/generated"
# The contract: these fields, in this order. Fields may be added at the end; numbers never change.
FIELDS = {
    "RequestLog": """id timestamp user_id api_key_id api_key_prefix api_key_hash api_key_address api_key_name model_name
        input_tokens output_tokens input_tokens_cost_microdollar input_tokens_cost input_tokens_cost_before_fee
        output_tokens_cost_microdollar output_tokens_cost output_tokens_cost_before_fee status status_code
        request_headers request_body response_headers response_body response_body_raw llm_parameters
        upstream_duration_ms duration_ms request_id created_at storage_location storage_row_index storage_batch_id
        use_object_storage cached_input_tokens cached_input_tokens_cost cached_input_tokens_cost_before_fee
        cache_creation_input_tokens cache_creation_input_tokens_cost cache_creation_input_tokens_cost_before_fee""",
    "QueryRequestLogsRequest": """user_id api_key_id model_name status status_code start_time end_time min_duration_ms
        max_duration_ms page_size page_token order_by order_direction""",
    "QueryRequestLogsResponse": "logs next_page_token total_count total_count_is_approximate",
    "GetRequestLogRequest": "request_id",
    "GetRequestLogResponse": "log",
    "GetRequestLogStatsRequest": "user_id model_name start_time end_time group_by metric",
    "RequestLogStat": """group count error_count unpriced_count input_tokens output_tokens cached_input_tokens cost
        avg_duration_ms p50_duration_ms p95_duration_ms p99_duration_ms value""",
    "GetRequestLogStatsResponse": """stats total_count total_input_tokens total_output_tokens total_cost avg_duration_ms
        error_count""",
    "ListCustomerRequestLogsRequest": """api_key_id model_name status status_code start_time end_time min_duration_ms
        max_duration_ms page_size page_token order_by order_direction""",
    "ListCustomerRequestLogsResponse": "logs next_page_token total_count total_count_is_approximate",
}
MODELS: dict[str, type[BaseModel]] = {
    "RequestLog": RequestLog,
    "QueryRequestLogsRequest": LogParameters,
    "QueryRequestLogsResponse": LogPage,
    "GetRequestLogStatsRequest": StatsParameters,
    "RequestLogStat": StatsGroup,
    "GetRequestLogStatsResponse": StatsAnswer,
    "ListCustomerRequestLogsRequest": LogParameters,
    "ListCustomerRequestLogsResponse": LogPage,
}
# The REST fields that the contract of the service does not have.
ONLY_IN_REST = {
    "RequestLog": {
        *("provider", "is_error", "error_type", "error_message", "thinking_tokens", "usage", "usage_source"),
        *("service_tier", "time_to_first_token_ms", "cost", "cost_before_fee", "other_cost", "other_cost_before_fee"),
        *("fee_rate", "price_id", "price_version", "input_variables", "tags", "metadata", "prompt_id"),
        *("prompt_version_number", "prompt_name", "tool_names", "turn_count", "tool_call_count", "session_id"),
        "trace_id",
    },
    "QueryRequestLogsRequest": {"is_error"},
    "GetRequestLogStatsRequest": {"limit", "timezone", "is_error"},
    "RequestLogStat": {"missing_usage_count", "failed_without_usage_count"},
    "GetRequestLogStatsResponse": {
        *("truncated", "unpriced_count", "missing_usage_count", "failed_without_usage_count"),
    },
    "ListCustomerRequestLogsRequest": {"user_id", "is_error"},
}
SCALARS = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_INT32: "integer",
    FieldDescriptor.TYPE_INT64: "integer",
    FieldDescriptor.TYPE_DOUBLE: "number",
    FieldDescriptor.TYPE_BOOL: "boolean",
}
MESSAGES = {
    "google.protobuf.Timestamp": "time",
    "google.protobuf.Struct": "object",
    "google.protobuf.Value": "any",
    f"{PACKAGE}.RequestLog": "RequestLog",
    f"{PACKAGE}.RequestLogStat": "StatsGroup",
}


def kind_of_field(field: FieldDescriptor) -> str:
    kind = SCALARS[field.type] if field.message_type is None else MESSAGES[field.message_type.full_name]
    return f"list of {kind}" if field.is_repeated else kind


def kind_of_schema(schema: dict[str, Any]) -> str:
    """The same of a property of a JSON Schema."""
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) > 1:
        return "any"
    schema = choices[0] if choices else schema
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return "text" if name in ("OrderBy", "OrderDirection", "GroupBy", "StatsMetric") else name
    if schema.get("type") == "array":
        return f"list of {kind_of_schema(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time"
    return "text" if schema["type"] == "string" else str(schema["type"])


def fields_of(name: str) -> list[FieldDescriptor]:
    return list(message_of(name).DESCRIPTOR.fields)


def test_the_fields_are_those_of_the_contract_in_its_order() -> None:
    assert {message.name for message in request_logs_pb.desc().messages} == set(FIELDS)
    for name, fields in FIELDS.items():
        found = [(field.name, field.number) for field in fields_of(name)]
        assert found == [(field, number) for number, field in enumerate(fields.split(), start=1)]


@pytest.mark.parametrize("name", MODELS)
def test_the_fields_are_those_of_rest_with_their_types(name: str) -> None:
    model = MODELS[name]
    is_asked = name.endswith("Request")
    properties = model.model_json_schema(mode="validation" if is_asked else "serialization")["properties"]
    fields = {field.name: kind_of_field(field) for field in fields_of(name)}
    assert {name: kind_of_schema(properties[name]) for name in fields} == fields
    assert set(model.model_fields) - set(fields) == ONLY_IN_REST.get(name, set())


@pytest.mark.parametrize("name", ["RequestLog", "RequestLogStat", "GetRequestLogStatsResponse"])
def test_what_may_be_unknown_may_be_unset(name: str) -> None:
    """So that an unknown cost is never read as 0."""
    for field in fields_of(name):
        annotation = MODELS[name].model_fields[field.name].annotation
        may_be_null = type(None) in get_args(annotation) if isinstance(annotation, types.UnionType) else False
        if may_be_null:
            assert field.has_presence, field.name


def test_filters_have_no_presence_as_zero_is_none() -> None:
    for name in ("QueryRequestLogsRequest", "GetRequestLogStatsRequest", "ListCustomerRequestLogsRequest"):
        assert [field.name for field in fields_of(name) if field.has_presence] == ["start_time", "end_time"]


def test_every_method_of_the_services_is_served() -> None:
    declared = {
        (service.name, method.name, method.input_type.name, method.output_type.name)
        for service in SERVICES.values()
        for method in service.methods
    }
    assert {
        (method.service, method.name, method.asked.desc().name, method.answered.desc().name) for method in METHODS
    } == declared
    # Asking changes nothing, so caches may answer and clients may ask again.
    assert {method.GetOptions().idempotency_level for service in SERVICES.values() for method in service.methods} == {1}


def buf(*arguments: str, cwd: Path = PROTO) -> str:
    """The output of `buf`, which fails when there is something to say."""
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["buf", *arguments], cwd=cwd, env=tools, check=True, capture_output=True, text=True).stdout


def test_the_proto_is_clean() -> None:
    assert buf("lint") == ""
    assert buf("format", "--diff", "--exit-code") == ""


def test_the_committed_code_is_what_the_proto_generates(tmp_path: Path) -> None:
    shutil.copytree(PROTO, tmp_path / "proto")
    (tmp_path / "api/connect/generated").mkdir(parents=True)
    buf("generate", cwd=tmp_path / "proto")
    names = sorted(str(path.relative_to(GENERATED)) for path in GENERATED.rglob("*.py"))
    again = sorted(
        str(path.relative_to(tmp_path / "api/connect/generated")) for path in (tmp_path / "api").rglob("*.py")
    )
    assert names == again
    assert filecmp.cmpfiles(GENERATED, tmp_path / "api/connect/generated", names, shallow=False)[1:] == ([], [])
