"""Errors of the SQL endpoint, with ClickHouse's codes and text format, so that its clients handle them as usual.

Clients read the numeric code from a header and the symbolic name from the end of the text.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from ..base.errors import GrantledgerError


class ErrorCode(IntEnum):
    """Codes and names from ClickHouse, src/Common/ErrorCodes.cpp."""

    BAD_ARGUMENTS = 36
    NOT_IMPLEMENTED = 48
    UNKNOWN_TABLE = 60
    SYNTAX_ERROR = 62
    UNKNOWN_FORMAT = 73
    TIMEOUT_EXCEEDED = 159
    READONLY = 164
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    QUERY_IS_TOO_LARGE = 229
    CANNOT_DECOMPRESS = 271
    LIMIT_EXCEEDED = 290
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516
    UNKNOWN_EXCEPTION = 1002


# HTTP statuses as in ClickHouse, src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; every other code is a 500.
_STATUS: Final = {
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 43, 44, 46, 50, 53, 62, 69, 70, 72, 73, 117, 271, 456, 457), 400),
    **dict.fromkeys((47, 60, 81, 115), 404),
    **dict.fromkeys((164, 497, 516), 403),
    159: 408,
    229: 413,
    48: 501,
    # 503 makes clients retry. Of this endpoint, 290 only means that the query log has no room.
    202: 503,
    290: 503,
}

_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")


class SqlError(GrantledgerError):
    """A query failed.

    `code` is ClickHouse's numeric error code, `name` its symbolic name, `message` the text for people.
    """

    def __init__(self, code: int, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.name = name or ErrorCode(code).name
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status that a ClickHouse server would send."""
        return _STATUS.get(self.code, 500)

    def text(self, version: str) -> str:
        """Return the body of an error response, as a ClickHouse server of `version` writes it."""
        return f"Code: {self.code}. DB::Exception: {self.message} ({self.name}) (version {version})\n"


class QueryRefusedError(SqlError):
    """The query is not admitted."""


class EngineError(SqlError):
    """The engine rejected the query or failed to run it."""

    @classmethod
    def parse(cls, text: str) -> EngineError:
        """Parse the code and name from an engine's error text; code 1002 if it has none."""
        start = text.find("Code: ")
        text = text[start:].strip() if start >= 0 else text.strip()
        code = _CODE.match(text)
        names = _NAME.findall(text)
        message = re.sub(r"^(?:Code: \d+\. DB::\w+: )+", "", text)
        # `text` adds the name and version again.
        message = re.sub(r"(?:\s*\((?:[A-Z][A-Z0-9_]+|version [^)]*)\)\.?)+\s*$", "", message)
        return cls(
            int(code[1]) if code else ErrorCode.UNKNOWN_EXCEPTION, message, names[-1] if names else "UNKNOWN_EXCEPTION"
        )
