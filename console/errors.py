"""What the SQL way in answers when it does not answer with rows: ClickHouse's own codes and text shape.

Clients of ClickHouse read the numeric code from a header and the symbolic name from the end of the text,
so a refusal of ours is understood by them as one of the server's.
"""

from __future__ import annotations

import re
from typing import Final

# Codes and names from ClickHouse, src/Common/ErrorCodes.cpp.
NAMES: Final = {
    36: "BAD_ARGUMENTS",
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    73: "UNKNOWN_FORMAT",
    115: "UNKNOWN_SETTING",
    159: "TIMEOUT_EXCEEDED",
    164: "READONLY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    229: "QUERY_IS_TOO_LARGE",
    271: "CANNOT_DECOMPRESS",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
    1002: "UNKNOWN_EXCEPTION",
}
BAD_ARGUMENTS: Final = 36
NOT_IMPLEMENTED: Final = 48
SYNTAX_ERROR: Final = 62
UNKNOWN_FORMAT: Final = 73
UNKNOWN_SETTING: Final = 115
TIMEOUT_EXCEEDED: Final = 159
READONLY: Final = 164
TOO_MANY_SIMULTANEOUS_QUERIES: Final = 202
QUERY_IS_TOO_LARGE: Final = 229
CANNOT_DECOMPRESS: Final = 271
ACCESS_DENIED: Final = 497
AUTHENTICATION_FAILED: Final = 516
UNKNOWN_EXCEPTION: Final = 1002

# HTTP statuses after ClickHouse, src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; a code not named here is a 500.
_STATUS: Final = {
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 43, 44, 46, 50, 53, 62, 69, 70, 72, 73, 117, 271, 456, 457), 400),
    **dict.fromkeys((47, 60, 81, 115), 404),
    **dict.fromkeys((164, 497, 516), 403),
    159: 408,
    229: 413,
    48: 501,
    # 503 makes clients try again, which is right when only the queue was full.
    202: 503,
}

_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")


class SqlError(Exception):
    """A query that did not succeed.

    `code` is ClickHouse's numeric error code, `name` its symbolic name, `message` the text for the person who asked.
    """

    def __init__(self, code: int, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.name = name or NAMES.get(code, "UNKNOWN_EXCEPTION")
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status a ClickHouse server would answer with."""
        return _STATUS.get(self.code, 500)

    def text(self, version: str) -> str:
        """The body of an error answer, as a ClickHouse server of `version` words it."""
        return f"Code: {self.code}. DB::Exception: {self.message} ({self.name}) (version {version})\n"


class QueryRefusedError(SqlError):
    """The gate does not let this text run; `message` says what was refused and why."""


class EngineError(SqlError):
    """The engine itself refused or failed the query."""

    @classmethod
    def parse(cls, text: str) -> EngineError:
        """Read code and name out of the engine's own exception text; code 1002 when it carries none."""
        start = text.find("Code: ")
        text = text[start:].strip() if start >= 0 else text.strip()
        code = _CODE.match(text)
        names = _NAME.findall(text)
        message = re.sub(r"^(?:Code: \d+\. DB::\w+: )+", "", text)
        # The name and the version are put back by `text`, once.
        message = re.sub(r"(?:\s*\((?:[A-Z][A-Z0-9_]+|version [^)]*)\)\.?)+\s*$", "", message)
        return cls(int(code[1]) if code else UNKNOWN_EXCEPTION, message, names[-1] if names else None)
