"""OTLP logs over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp. The body of each log record is a record.

The body is a text (a line that the tool wrote), or a map (a line that a collector has parsed).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from .own_events import is_deeper
from .problems import ProblemError

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MOST_DEPTH = 64
_MOST_MESSAGE = 1_000


def log_bodies(body: bytes, media_type: str) -> Iterator[bytes]:
    """Yield the body of each log record as text.

    Raises:
        ProblemError: 400, the request is not one of OTLP; 415, it is of another type.
    """
    if media_type == PROTOBUF:
        try:
            request = ExportLogsServiceRequest.FromString(body)
        except DecodeError as error:
            raise ProblemError(400, f"not an ExportLogsServiceRequest: {str(error)[:200]}") from None
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    yield _text(_of_protobuf(record.body, 0))
    elif media_type == JSON:
        for record in _json_records(body):
            yield _text(_of_json(record.get("body"), 0))
    else:
        raise ProblemError(415, f"Content-Type {media_type[:80]!r} is not {PROTOBUF} or {JSON}")


def answer(refused: int, message: str, media_type: str) -> bytes:
    """Return an ``ExportLogsServiceResponse``. The client must not send what is refused again."""
    if media_type == JSON:
        partial = {"rejectedLogRecords": str(refused), "errorMessage": message[:_MOST_MESSAGE]}
        return json.dumps({"partialSuccess": partial} if refused else {}).encode()
    response = ExportLogsServiceResponse()
    if refused:
        response.partial_success.rejected_log_records = refused
        response.partial_success.error_message = message[:_MOST_MESSAGE]
    encoded: bytes = response.SerializeToString()
    return encoded


def status(message: str) -> bytes:
    """Return the ``google.rpc.Status`` of an error, which has the message as its field 2."""
    text = message.encode()[:_MOST_MESSAGE]
    length = len(text)
    prefix = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
    return b"\x12" + prefix + text


def _json_records(body: bytes) -> Iterator[dict[str, Any]]:
    try:
        request = json.loads(body)
    except RecursionError:
        raise ProblemError(422, f"the body is nested more than {MOST_DEPTH} levels deep") from None
    except ValueError as error:
        raise ProblemError(400, f"the body is not JSON: {str(error)[:200]}") from None
    if is_deeper(request, MOST_DEPTH):
        raise ProblemError(422, f"the body is nested more than {MOST_DEPTH} levels deep")
    for resource in _members([request], "resourceLogs"):
        for scope in _members([resource], "scopeLogs"):
            yield from _members([scope], "logRecords")


def _members(objects: list[Any], name: str) -> Iterator[dict[str, Any]]:
    for one in objects:
        members = one.get(name, []) if isinstance(one, dict) else None
        if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
            raise ProblemError(400, f"not an ExportLogsServiceRequest: {name} must be a list of objects")
        yield from members


def _of_protobuf(value: Any, depth: int) -> Any:
    """Return an ``AnyValue`` as a JSON value."""
    kind = value.WhichOneof("value")
    if kind is None or depth > MOST_DEPTH:
        return None
    found = getattr(value, kind)
    if kind == "kvlist_value":
        return {one.key: _of_protobuf(one.value, depth + 1) for one in found.values}
    if kind == "array_value":
        return [_of_protobuf(one, depth + 1) for one in found.values]
    return found


def _of_json(value: Any, depth: int) -> Any:
    """Return an ``AnyValue`` in its JSON form as a JSON value."""
    if not isinstance(value, dict) or not value or depth > MOST_DEPTH:
        return None
    [(kind, found), *_] = value.items()
    values = found.get("values", []) if isinstance(found, dict) else []
    members = [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
    if kind == "kvlistValue":
        return {str(one.get("key")): _of_json(one.get("value"), depth + 1) for one in members}
    if kind == "arrayValue":
        return [_of_json(one, depth + 1) for one in members]
    if kind == "intValue" and isinstance(found, str) and found.removeprefix("-").isdecimal() and len(found) <= 20:
        return int(found)
    if kind == "bytesValue" and isinstance(found, str):
        try:
            return base64.b64decode(found, validate=True)
        except (ValueError, binascii.Error):
            return None
    return found


def _text(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if value is None:
        return b"null"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
