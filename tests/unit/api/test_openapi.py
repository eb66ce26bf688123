"""The OpenAPI document: valid, with examples that their schemas accept, and nothing that a generator trips over."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from aggregator.clickhouse.client import Warehouse
from api.app import create_app
from ingest.producer.event_publisher import KafkaEventPublisher
from tests.support.api import settings

Json = dict[str, Any]
OPERATION_IDS = {
    "check_health", "check_readiness", "get_version",
    "query_request_logs", "get_request_log_stats", "get_request_log",
    "post_events", "get_event_schema",
    "get_analytics_meta", "request_analytics", "custom_analytics", "search_requests", "suggest_values",
    "get_budgets", "put_budget", "delete_budget", "get_alerts",
    "get_live_usage", "stream_live_usage",
}  # fmt: skip
# A value whose name ends so has this unit, which its description names.
UNITS = {
    "_ms": "illiseconds",
    "Ms": "illiseconds",
    "_seconds": "econds",
    "Seconds": "econds",
    "latency": "econds",
    "cost": "ollars",
    "Cost": "ollars",
    "cost_before_fee": "ollars",
    "_usd": "ollars",
    "_microdollar": "illionths of a dollar",
    "_percent": "ercent",
    "_tokens": "okens",
    "Tokens": "okens",
}


@pytest.fixture(scope="module")
def document() -> Json:
    # Nothing connects before it is asked for something.
    publisher = KafkaEventPublisher("nowhere:9092", "request-events")
    app = create_app(settings(), Warehouse("chdb:///nowhere"), publisher)
    found: Json = json.loads(json.dumps(app.openapi()))
    return found


def operations(document: Json) -> Iterator[Json]:
    for found in document["paths"].values():
        yield from found.values()


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every object of the document but those in examples, with the path to it."""
    if isinstance(value, dict):
        yield path, value
        for name, child in value.items():
            if name not in ("example", "examples"):
                yield from nodes(child, f"{path}/{name}")
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from nodes(child, f"{path}/{number}")


def properties(document: Json) -> Iterator[tuple[str, str, Json]]:
    """(schema, name, property) of every property, wherever its schema is."""
    for path, node in nodes(document):
        if "properties" in node and not path.endswith("/properties"):
            yield from ((path, name, found) for name, found in node["properties"].items())


def parameters(document: Json) -> Iterator[tuple[str, str, Json]]:
    for operation in operations(document):
        for parameter in operation.get("parameters", []):
            yield operation["operationId"], parameter["name"], parameter


def is_nullable(schema: Json) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


def test_the_document_is_valid_openapi(document: Json) -> None:
    assert document["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def examples(document: Json) -> Iterator[tuple[str, Json, Any]]:
    """(path, schema, example) of every example: of schemas, of bodies and answers, of parameters."""
    for path, node in nodes(document):
        schema = node.get("schema", node)
        found = [*node.get("examples", []), *([node["example"]] if "example" in node else [])]
        yield from ((path, schema, example) for example in found)


def test_every_example_is_accepted_by_its_schema(document: Json) -> None:
    found = list(examples(document))
    assert len(found) > 50
    for path, schema, example in found:
        validator = Draft202012Validator({**schema, "components": document["components"]})
        assert [error.message for error in validator.iter_errors(example)] == [], path


def test_examples_keep_their_nulls(document: Json) -> None:
    schemas = document["components"]["schemas"]
    [log] = schemas["RequestLog"]["examples"]
    assert set(log) == set(schemas["RequestLog"]["properties"])
    assert log["response_headers"] is None
    [found] = schemas["SearchAnswer"]["examples"]
    assert found["next_num"] is None


def test_every_parameter_and_property_is_described_in_sentences(document: Json) -> None:
    found = [*parameters(document), *properties(document)]
    assert len(found) > 450
    for where, name, thing in found:
        description = thing.get("description", "")
        assert re.fullmatch(r'[A-Z`"].*[.]', description, re.DOTALL), f"{where} {name}: {description!r}"


def test_every_description_names_the_unit_of_the_value(document: Json) -> None:
    for where, name, thing in [*parameters(document), *properties(document)]:
        if "boolean" in str(thing.get("type")) or name in ("cached_tokens",):
            continue
        for ending, unit in UNITS.items():
            if name.endswith(ending):
                assert unit in thing["description"], f"{where} {name}: {thing['description']!r} names no {unit}"


def test_what_may_be_null_in_an_answer_says_what_null_means(document: Json) -> None:
    answered = {
        name
        for operation in operations(document)
        for response in operation["responses"].values()
        for name in _schemas_of(document, response)
    }
    for name in answered:
        for field, schema in document["components"]["schemas"][name].get("properties", {}).items():
            if is_nullable(schema):
                assert re.search("[nN]ull|left out|Left out", schema["description"]), f"{name}.{field}"


def _schemas_of(document: Json, part: Json) -> set[str]:
    """The names of the schemas that a part of the document refers to, and these in turn."""
    seen: set[str] = set()
    pending = [part]
    while pending:
        text = json.dumps(pending.pop())
        for name in set(re.findall(r'"#/components/schemas/(\w+)"', text)) - seen:
            seen.add(name)
            pending.append(document["components"]["schemas"][name])
    return seen


def test_names_of_schemas_are_words_of_the_domain_and_differ_in_more_than_case(document: Json) -> None:
    names = list(document["components"]["schemas"])
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"([A-Z][a-z]+)+", name), name
        assert name not in ("Error", "Field", "Interval", "Kind", "Level", "Metric", "Object", "Period", "Stat", "Unit")
        assert not name.endswith(("Input", "Output")), f"{name}: the same model is two types"


def test_schemas_are_written_in_words_that_every_generator_understands(document: Json) -> None:
    for path, node in nodes(document):
        if path.endswith("/properties"):
            continue
        assert "const" not in node, path
        assert "itemSchema" not in node, path
        assert not isinstance(node.get("type"), list), path
        assert "title" not in node or path == "/info", path
        assert node.get("type") != "integer" or node["format"] == "int64", path
        assert node.get("type") != "number" or node["format"] == "double", path
        assert node.get("type") != "array" or "items" in node, path


def test_operations_have_stable_names_a_tag_and_a_summary(document: Json) -> None:
    ids = [operation["operationId"] for operation in operations(document)]
    assert sorted(ids) == sorted(OPERATION_IDS)
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert all(description.endswith(".") for description in tags.values())
    assert {tag for operation in operations(document) for tag in operation["tags"]} == set(tags)
    assert all(len(operation["tags"]) == 1 and operation["summary"] for operation in operations(document))


def test_the_document_says_where_the_service_is_and_under_which_licence(document: Json) -> None:
    assert document["servers"] == [{"url": "/", "description": "The service that answers with this document."}]
    assert document["info"]["license"] == {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def test_the_body_of_events_is_the_event(document: Json) -> None:
    content = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/RequestEvent"}
    event = document["components"]["schemas"]["RequestEvent"]
    assert event["required"] == ["request_id", "timestamp", "model_name", "status"]


def test_a_limit_of_the_rate_says_when_to_try_again(document: Json) -> None:
    for operation in operations(document):
        if refused := operation["responses"].get("429"):
            assert refused["headers"]["Retry-After"]["schema"]["type"] == "integer"
