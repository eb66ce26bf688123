"""Proto messages to the parameters of the REST routes, and their answers to proto messages.

An answer is read from the JSON of the REST route, which ProtoJSON can: the names are those of the proto, numbers and
costs stay as they are, and what the proto does not have is left out.
"""

import json
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from protobuf import Message
from protobuf.wkt import Timestamp
from pydantic import BaseModel, ValidationError

from api.connect.generated.agentrouter.insights.v1 import request_logs_pb as pb
from api.errors import invalid_argument
from api.request_logs.schemas import RequestLog

Parameters = TypeVar("Parameters", bound=BaseModel)
Answer = TypeVar("Answer", bound=Message)

OBJECTS = ("request_headers", "request_body", "response_headers", "response_body", "llm_parameters")
# Readers of protobuf give up at a hundred messages within one another, and each level of an object takes up to three.
MAX_LEVELS = 30
LARGEST_NUMBER = 2.0**1023


def parameters_of(asked: Message, model: type[Parameters], **more: Any) -> Parameters:
    """The parameters that `asked` sets, as `model` checks them. What has its zero value is not set.

    Raises RequestValidationError for values that the model refuses, ApiError 400 for a time that is none.
    """
    given = dict(more)
    for field in asked.desc().fields:
        if asked.has_field(field.name):
            value = getattr(asked, field.local_name)
            given[field.name] = _rfc3339(field.name, value) if isinstance(value, Timestamp) else value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in error.errors()]) from None


def _rfc3339(name: str, moment: Timestamp) -> Any:
    try:
        return json.loads(moment.to_json())
    except ValueError:
        raise invalid_argument(name, "must be a time of the years 1 to 9999") from None


def read_as(message: type[Answer], answer: BaseModel) -> Answer:
    return message.from_json(answer.model_dump_json(), ignore_unknown_fields=True)


def log_message(log: RequestLog) -> pb.RequestLog:
    """The log, with `{"unreadable": text}` for an object that a Struct cannot hold."""
    objects = {name: getattr(log, name) for name in OBJECTS}
    replaced = {name: {"unreadable": json.dumps(value)} for name, value in objects.items() if not _fits(value)}
    return read_as(pb.RequestLog, log.model_copy(update=replaced) if replaced else log)


def _fits(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether every reader can read it: neither too deep nor with a number past the largest double."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_fits(item, levels - 1) for item in items)
    return not isinstance(value, int) or abs(value) < LARGEST_NUMBER
