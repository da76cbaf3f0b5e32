"""Parse a request of ClickHouse's HTTP interface (clickhouse.com/docs, "HTTP Interface"). Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from . import allowed, formats, native
from .address import EndpointCredential
from .encoders import FRAMES, HTTP_ENCODINGS
from .errors import ErrorCode, QueryRefusedError
from .execution import Query
from .form import form_fields
from .roles import Role
from .sql_gate import MAX_QUERY_BYTES

# Transport parameters, and hints that do not change the rows of an answer: accepted and ignored.
IGNORED: Final = frozenset({
    "user", "password", "query_id", "session_id", "session_timeout", "session_check", "quota_key", "stacktrace",
    "buffer_size", "wait_end_of_query", "client_protocol_version", "role", "readonly", "http_zlib_compression_level",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close", "add_http_cors_header",
    "http_write_exception_in_output_format", "log_queries", "log_comment", "max_threads", "max_block_size",
    "priority", "use_query_cache", "async_insert", "wait_for_async_insert", "connect_timeout", "receive_timeout",
    "send_timeout",
})  # fmt: skip
# The engine's library opens `file:/path` and paths as files.
_TIME_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
# Limits that a client may change up to the ceilings of its role.
_LOWERABLE: Final = frozenset({"max_execution_time", "max_memory_usage", "max_result_rows", "max_result_bytes"})


def presented_credential(headers: Mapping[str, str], parameters: Mapping[str, str]) -> EndpointCredential | None:
    """Return the user and password of a request; None if it has neither.

    Reads X-ClickHouse-User and X-ClickHouse-Key, then Basic authentication, then `user` and `password` in the URL.
    """
    user, password = headers.get("x-clickhouse-user"), headers.get("x-clickhouse-key")
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if user is None and password is None and scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return EndpointCredential("", "")
    if user is None and password is None:
        user, password = parameters.get("user"), parameters.get("password")
    if user is None and password is None:
        return None
    return EndpointCredential(user or "", password or "")


@dataclass(frozen=True)
class SentStatement:
    """A statement as a request contains it: its text, and the other fields of the URL and the form."""

    text: str
    fields: Mapping[str, str]

    @property
    def parameters(self) -> dict[str, str]:
        """Values of `{name:Type}` substitutions."""
        return {name[6:]: value for name, value in self.fields.items() if name.startswith("param_")}


def read_statement(headers: Mapping[str, str], parameters: Iterable[tuple[str, str]], body: bytes) -> SentStatement:
    """Return the statement of a request. Its text is empty if there is none, which ClickHouse answers with "Ok.".

    `headers` have lower-case names.

    Raises:
        QueryRefusedError: an HTTP-compressed, malformed or damaged body, or external data.
    """
    fields = dict(parameters)
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise QueryRefusedError(
            ErrorCode.NOT_IMPLEMENTED,
            f"Content-Encoding {encoding[:20]} is not supported in requests: send plain text.",
        )
    if _is_true(fields.pop("decompress", "")):
        body = native.decompress(body, MAX_QUERY_BYTES)
    content_type = headers.get("content-type", "")
    try:
        if content_type.lower().startswith("multipart/form-data"):
            fields |= form_fields(content_type, body)
            body = b""
        sql = "\n".join(part for part in (fields.pop("query", ""), body.decode()) if part)
    except UnicodeDecodeError as error:
        raise QueryRefusedError(ErrorCode.BAD_ARGUMENTS, f"The request is not UTF-8 at byte {error.start}.") from None
    return SentStatement(sql if sql.strip() else "", fields)


def read_query(sent: SentStatement, headers: Mapping[str, str], *, database: str, role: Role) -> Query:
    """Return the query of a statement. `database` is the only permitted current database.

    Raises:
        QueryRefusedError: another database, or a setting that is not permitted.
    """
    fields = dict(sent.fields)
    requested = fields.pop("database", "") or headers.get("x-clickhouse-database") or database
    if requested != database:
        raise QueryRefusedError(
            ErrorCode.ACCESS_DENIED, f"Refused: database {requested} cannot be the current one, only {database}."
        )
    return Query(
        sent.text,
        default_format=fields.pop("default_format", "") or headers.get("x-clickhouse-format") or formats.DEFAULT,
        encoding=_encoding(headers, fields),
        parameters=sent.parameters,
        settings=_settings({name: fields[name] for name in fields if not name.startswith("param_")}, role),
    )


def _encoding(headers: Mapping[str, str], fields: dict[str, str]) -> str | None:
    http = _is_true(fields.pop("enable_http_compression", ""))
    if _is_true(fields.pop("compress", "")):
        return FRAMES
    accepted = {name.strip() for name in headers.get("accept-encoding", "").split(",")}
    return next((name for name in HTTP_ENCODINGS if http and name in accepted), None)


def _settings(requested: Mapping[str, str], role: Role) -> dict[str, str]:
    settings: dict[str, str] = {}
    ceilings = {**role.limits, **role.ceilings}
    for name, value in requested.items():
        if name in IGNORED:
            continue
        lower = name in _LOWERABLE and _is_lower(value, ceilings[name])
        if name == "session_timezone" and not _TIME_ZONE.fullmatch(value):
            raise QueryRefusedError(ErrorCode.BAD_ARGUMENTS, f"Unknown time zone {value[:100]}.")
        if not lower and name not in allowed.settings():
            # As a server does with readonly=1. Ignoring the setting would change the meaning of the query.
            raise QueryRefusedError(ErrorCode.READONLY, f"Cannot modify '{name[:100]}' setting in readonly mode.")
        settings[name] = value
    return settings


def _is_lower(value: str, ceiling: str) -> bool:
    try:
        return 0 < float(value) <= float(ceiling)
    except ValueError:
        return False


def _is_true(value: str) -> bool:
    return value.lower() in {"1", "true"}
