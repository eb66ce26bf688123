"""A client of the proto services that shares no code with the server: messages are those of Google's protobuf."""

import base64
import json
import struct
from typing import Any, NamedTuple
from urllib.parse import unquote

from google.protobuf import descriptor_pool, json_format, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.message import Message
from starlette.testclient import TestClient

from api.connect.generated.agentrouter.insights.v1 import request_logs_pb

PACKAGE = "agentrouter.insights.v1"
_POOL = descriptor_pool.DescriptorPool()
for file in (struct_pb2.DESCRIPTOR, timestamp_pb2.DESCRIPTOR):
    _POOL.AddSerializedFile(file.serialized_pb)
_POOL.AddSerializedFile(request_logs_pb.desc().proto.to_binary())

# Method name to its service; the names are unique.
SERVICES = {
    method.name: service
    for name in ("RequestLogsService", "CustomerRequestLogsService")
    for service in [_POOL.FindServiceByName(f"{PACKAGE}.{name}")]
    for method in service.methods
}


class Answer(NamedTuple):
    """`body` is the answer with the names of the proto, or the error as Connect writes it in JSON."""

    status: int
    body: Any
    headers: Any


def path_of(method: str) -> str:
    return f"/{SERVICES[method].full_name}/{method}"


def message_of(name: str, fields: dict[str, Any] | None = None) -> Message:
    """A message of the package, from fields as ProtoJSON writes them; strict about names."""
    message: Message = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))()
    return json_format.ParseDict(fields or {}, message)


def asked_of(method: str) -> str:
    return str(SERVICES[method].methods_by_name[method].input_type.name)


def answered_of(method: str) -> str:
    return str(SERVICES[method].methods_by_name[method].output_type.name)


def plain(message: Message) -> Any:
    """Fields that are set, with the names of the proto; 64-bit numbers are text, as in all ProtoJSON."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def ask_json(client: TestClient, method: str, fields: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    response = client.post(path_of(method), json=fields, headers=headers)
    if response.status_code != 200:
        return Answer(response.status_code, response.json(), response.headers)
    assert response.headers["content-type"] == "application/json"
    answer = json_format.Parse(response.content, message_of(answered_of(method)))
    return Answer(200, plain(answer), response.headers)


def ask_binary(
    client: TestClient, method: str, fields: dict[str, Any], headers: dict[str, str] | None = None
) -> Answer:
    body = message_of(asked_of(method), fields).SerializeToString()
    given = {"Content-Type": "application/proto", **(headers or {})}
    response = client.post(path_of(method), content=body, headers=given)
    if response.status_code != 200:
        return Answer(response.status_code, response.json(), response.headers)
    assert response.headers["content-type"] == "application/proto"
    answer = message_of(answered_of(method))
    answer.ParseFromString(response.content)
    return Answer(200, plain(answer), response.headers)


# The codes of gRPC that the service uses, by Connect's words for them, and the HTTP status that Connect gives each.
GRPC_CODES = {
    "3": ("invalid_argument", 400),
    "4": ("deadline_exceeded", 504),
    "5": ("not_found", 404),
    "7": ("permission_denied", 403),
    "8": ("resource_exhausted", 429),
    "12": ("unimplemented", 501),
    "13": ("internal", 500),
    "14": ("unavailable", 503),
    "16": ("unauthenticated", 401),
}


def _frames(content: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while content:
        flags, size = struct.unpack(">BI", content[:5])
        frames.append((flags, content[5 : 5 + size]))
        content = content[5 + size :]
    return frames


def ask_grpc_web(
    client: TestClient, method: str, fields: dict[str, Any], headers: dict[str, str] | None = None
) -> Answer:
    """Errors come back as Connect would write them, without details."""
    body = message_of(asked_of(method), fields).SerializeToString()
    given = {"Content-Type": "application/grpc-web+proto", **(headers or {})}
    response = client.post(path_of(method), content=struct.pack(">BI", 0, len(body)) + body, headers=given)
    assert response.status_code == 200, response.text
    frames = _frames(response.content)
    trailers = dict(response.headers) | {
        name: value.strip()
        for flags, data in frames
        if flags & 0x80
        for name, _, value in (line.partition(":") for line in data.decode().splitlines())
    }
    if trailers["grpc-status"] != "0":
        code, status = GRPC_CODES[trailers["grpc-status"]]
        return Answer(status, {"code": code, "message": unquote(trailers["grpc-message"])}, trailers)
    answer = message_of(answered_of(method))
    [data] = [data for flags, data in frames if not flags & 0x80]
    answer.ParseFromString(data)
    return Answer(200, plain(answer), trailers)


def ask_get(client: TestClient, method: str, fields: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    """Connect's form for caches: the message in the query string."""
    message = base64.urlsafe_b64encode(message_of(asked_of(method), fields).SerializeToString()).decode().rstrip("=")
    given = {"connect": "v1", "encoding": "proto", "base64": "1", "message": message}
    response = client.get(path_of(method), params=given, headers=headers)
    if response.status_code != 200:
        return Answer(response.status_code, response.json(), response.headers)
    answer = message_of(answered_of(method))
    answer.ParseFromString(response.content)
    return Answer(200, plain(answer), response.headers)


# Every form in which a method may be asked.
FORMS = {"connect-json": ask_json, "connect-binary": ask_binary, "grpc-web": ask_grpc_web, "connect-get": ask_get}


def details_of(error: dict[str, Any], detail: Message) -> Message:
    """The detail of an error with this type, read into `detail`."""
    [found] = [each for each in error["details"] if each["type"] == detail.DESCRIPTOR.full_name]
    detail.ParseFromString(base64.b64decode(found["value"] + "=="))
    return detail


def as_proto_json(answer: str, rest: Any) -> Any:
    """What the proto shows of an answer of REST: the JSON as ProtoJSON reads it, without what the proto lacks."""
    message = json_format.ParseDict(rest, message_of(answer), ignore_unknown_fields=True)
    return json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True))
