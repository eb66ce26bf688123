from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from aggregator.errors import InvalidEventsError, NotStoredError
from api.errors import ApiError, ErrorDetail, documented
from api.events.publisher import EventPublisher
from api.events.schemas import AcceptedEvents
from api.parameters import NoParameters
from router_insights.errors import KafkaUnavailableError

MAX_BODY_BYTES = 8 * 1024 * 1024
JSON, NDJSON = "application/json", "application/x-ndjson"

EXAMPLE_EVENT = {
    "request_id": "req-7f3a",
    "timestamp": "2026-01-31T12:00:00.123456Z",
    "model_name": "gpt-5-mini",
    "provider": "openai",
    "status": "success",
    "input_tokens": 1200,
    "cached_input_tokens": 1000,
    "output_tokens": 340,
    "duration_ms": 2310,
}
EXAMPLE_SCHEMA = {"title": "RequestEvent", "type": "object", "required": ["request_id", "timestamp", "model_name"]}
BODY = {
    "required": True,
    "content": {
        JSON: {"schema": {"type": "object"}, "example": EXAMPLE_EVENT},
        NDJSON: {"schema": {"type": "string", "description": "One event per line."}},
    },
}

router = APIRouter(tags=["events"], responses=documented(400, 401, 403, 500, 503))


def _publisher(request: Request) -> EventPublisher:
    publisher: EventPublisher | None = request.app.state.event_publisher
    if publisher is None:
        raise ApiError(503, "This service is not connected to Kafka and takes no events.")
    return publisher


def _is_ndjson(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in (JSON, NDJSON):
        detail = ErrorDetail(field="content-type", message="is not supported", allowed=[JSON, NDJSON])
        raise ApiError(415, f"content-type must be {JSON} or {NDJSON}", [detail])
    return media_type == NDJSON


async def _read_body(request: Request) -> bytes:
    too_large = ApiError(413, f"The body may have at most {MAX_BODY_BYTES} bytes; send it in parts.")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > MAX_BODY_BYTES):
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


@router.post("/v1/events", status_code=202, responses=documented(413, 415, 422), openapi_extra={"requestBody": BODY})
async def post_events(request: Request, _: Annotated[NoParameters, Query()]) -> AcceptedEvents:
    """Put events on the topic, all of them or none: one JSON object, or NDJSON with one per line.

    202 is answered only once they are safe: in Kafka, acknowledged by all its replicas, or with `insights up` stored in
    ClickHouse. After 503 some may be there all the same. GET /v1/events/schema describes an event.
    """
    is_ndjson, publisher = _is_ndjson(request), _publisher(request)
    body = await _read_body(request)
    try:
        return AcceptedEvents(accepted=await publisher.publish(body, is_ndjson))
    except InvalidEventsError as error:
        details = [
            ErrorDetail(field=problem.field, message=problem.message, line=problem.line if is_ndjson else None)
            for problem in error.problems
        ]
        raise ApiError(422, "The body was refused, nothing of it was accepted.", details) from error
    except KafkaUnavailableError as error:
        raise ApiError(503, "Kafka does not take events right now; try again later.") from error
    except NotStoredError as error:
        raise ApiError(503, f"The events may not be stored, so send them again: {error}.") from error


@router.get("/v1/events/schema", responses={200: {"content": {JSON: {"example": EXAMPLE_SCHEMA}}}})
async def get_event_schema(request: Request, _: Annotated[NoParameters, Query()]) -> dict[str, Any]:
    """The JSON Schema of one event."""
    return _publisher(request).schema()
