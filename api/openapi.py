"""The OpenAPI document: what the framework writes, corrected and completed, so that generated clients work."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, TypeAdapter

from api.errors import MEANINGS
from api.events.publisher import EventPublisher

Json = dict[str, Any]

DESCRIPTION = """\
Who spent what, on which model, when, and which request failed.

Times are RFC 3339 in UTC, costs are decimal strings in dollars. An unknown or repeated parameter is refused.
Whatever goes wrong is answered in one shape: `{code, message, details}`; under `/api/public/v2` it is
`{success, message}`.
"""
SERVERS = [{"url": "/", "description": "The service that answers with this document."}]
LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
TAGS = [
    {"name": "health", "description": "Whether the service is up and ready, and which version runs."},
    {"name": "request logs", "description": "Single requests with all that is known of them, and statistics."},
    {"name": "events", "description": "Sends requests to Kafka, for gateways that do not speak Kafka themselves."},
    {"name": "request analytics", "description": "Search, charts and an overview, with one filter language."},
    {"name": "budgets", "description": "Limits on what is spent, and the alerts when they are reached."},
    {"name": "live usage", "description": "What is used this minute, and was in the hour before."},
]
REFERENCE = "#/components/schemas/"
EVENT = "RequestEvent"
RETRY_AFTER = {
    "description": "Seconds to wait before another try.",
    "schema": {"type": "integer", "minimum": 0},
}


def document_of(app: FastAPI) -> Json:
    """The document of the application, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=DESCRIPTION,
            routes=app.routes,
            tags=TAGS,
            servers=SERVERS,
            license_info=LICENSE,
        )
        schemas: Json = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError", "JsonValue"):
            schemas.pop(name, None)
        for name, examples in _examples(app).items():
            schemas[name]["examples"] = examples
        for operation in _operations(document):
            _correct(operation)
        _add_event(document, app.state.event_publisher)
        for schema in _roots(document):
            for part in _parts(schema):
                _simplify(part)
        app.openapi_schema = document
    return app.openapi_schema


def _operations(document: Json) -> Iterator[Json]:
    for operations in document["paths"].values():
        yield from operations.values()


def _examples(app: FastAPI) -> dict[str, list[Any]]:
    """The examples of models as they are written: the framework leaves their nulls out."""
    models = {
        model
        for route in (context.original_route for context in iter_route_contexts(app.routes))
        if isinstance(route, APIRoute)
        for model in (
            route.response_model,
            route.body_field and route.body_field.field_info.annotation,
            *(answer.get("model") for answer in route.responses.values()),
        )
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    _, found = TypeAdapter.json_schemas([(model, "serialization", TypeAdapter(model)) for model in models])
    return {name: schema["examples"] for name, schema in found["$defs"].items() if "examples" in schema}


def _correct(operation: Json) -> None:
    """Correct what the framework documents wrongly.

    Rate limits answer with 429, in the shape of the other errors; bad parameters with 400 instead of 422; and a query
    string has no null. `itemSchema` of a stream is a word of OpenAPI 3.2.
    """
    operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
    # None at all is said in so many words: some tools take silence for an oversight.
    operation.setdefault("security", [])
    if operation["responses"].get("422", {}).get("description") == "Validation Error":
        del operation["responses"]["422"]
    for status, response in operation["responses"].items():
        stream = response["content"].get("text/event-stream")
        # A stream ends in events, but a refusal is JSON.
        if int(status) >= 400 and stream:
            response["content"] = {"application/json": stream}
        elif stream and stream.pop("itemSchema", None):
            stream["schema"] = {"type": "string", "description": "Server-sent events; `data` of each is a LiveUsage."}
    if refused := operation["responses"].get("403"):
        headers = {"Retry-After": RETRY_AFTER}
        operation["responses"]["429"] = {**refused, "description": MEANINGS[429], "headers": headers}
    for parameter in operation.get("parameters", []):
        choices = parameter["schema"].pop("anyOf", [])
        parameter["schema"] |= next((choice for choice in choices if choice != {"type": "null"}), {})


def _add_event(document: Json, publisher: EventPublisher | None) -> None:
    """The event is defined by whoever publishes it; without a publisher none is taken."""
    if publisher is None:
        return
    event = publisher.schema()
    event.pop("$defs", None)
    document["components"]["schemas"][EVENT] = event
    content = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    content["application/json"]["schema"] = {"$ref": f"{REFERENCE}{EVENT}"}


def _roots(document: Json) -> Iterator[Json]:
    """Every schema that is not inside another."""
    yield from document["components"]["schemas"].values()
    for operation in _operations(document):
        for described in (operation.get("requestBody", {}), *operation["responses"].values()):
            yield from (content["schema"] for content in described.get("content", {}).values() if "schema" in content)
            yield from (header["schema"] for header in described.get("headers", {}).values())
        yield from (parameter["schema"] for parameter in operation.get("parameters", []))


def _parts(schema: Json) -> Iterator[Json]:
    """A schema and every schema inside."""
    yield schema
    children = [*schema.get("properties", {}).values()]
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        children += schema.get(name, [])
    children += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for child in children:
        yield from _parts(child)


def _simplify(schema: Json) -> None:
    """Say the same in words that every generator understands.

    Titles would become names of types, the same one for several. Numbers without a format become 32 bits wide. A
    constant becomes a type of its own in some languages, and nothing in others.
    """
    schema.pop("title", None)
    if schema.get("$ref", "").endswith("/JsonValue"):
        del schema["$ref"]
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    width = {"integer": "int64", "number": "double"}.get(schema.get("type", ""))
    if width:
        schema.setdefault("format", width)
    if "prefixItems" in schema:
        # Generators that do not know tuples need to know what is in the list.
        schema.setdefault("items", {})
