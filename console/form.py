"""Read the fields of a multipart/form-data body (RFC 7578). All limits apply before a field is read. Pure."""

from __future__ import annotations

import re
from typing import Final

from .errors import ErrorCode, QueryRefusedError

# ClickHouse's own limit is a million; no client needs more than a few dozen.
MOST_FIELDS: Final = 1000
"""Fields of one form, and parameters of one URL."""
_MOST_FIELD_HEADER_BYTES: Final = 1 << 10
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))\s*(?:;|$)', re.IGNORECASE)
_PARAMETER: Final = re.compile(r';\s*([\w*-]+)=(?:"([^"\\]*)"|([^\s;"]*))')
_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the names and values of a form.

    Raises:
        QueryRefusedError: the form is malformed or has too many fields (36), or contains a file (48).
        UnicodeDecodeError: a name or value is not UTF-8.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise _malformed("its Content-Type has no boundary of 1 to 70 characters")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1")
    # Not one part more than the limit is cut off.
    parts = (b"\r\n" + body).split(delimiter, MOST_FIELDS + 1)[1:]
    if not parts or not parts[-1].startswith(b"--"):
        many = len(parts) > MOST_FIELDS
        raise _malformed(f"more than {MOST_FIELDS} fields" if many else "it does not end with the boundary")
    if len(parts) == 1:
        raise _malformed("it has no field")
    return dict(_field(part) for part in parts[:-1])


def _field(part: bytes) -> tuple[str, str]:
    end = part.find(b"\r\n\r\n", 0, _MOST_FIELD_HEADER_BYTES)
    if end < 0 or not part.startswith(b"\r\n"):
        raise _malformed(f"a field without a header of at most {_MOST_FIELD_HEADER_BYTES} bytes")
    lines = (line.partition(":") for line in part[2:end].decode().split("\r\n"))
    headers = {name.lower(): value.strip() for name, _, value in lines}
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise _malformed("a form inside a form")
    if headers.get("content-transfer-encoding", "").lower() not in _ENCODINGS:
        raise _malformed("an encoded field")
    found = _PARAMETER.findall(headers.get("content-disposition", ""))
    parameters = {name.lower(): quoted or plain for name, quoted, plain in found}
    if parameters.keys() & {"filename", "filename*"}:
        raise QueryRefusedError(ErrorCode.NOT_IMPLEMENTED, "External data (an uploaded file) is not supported.")
    if not parameters.get("name"):
        raise _malformed("a field without a name")
    return parameters["name"], part[end + 4 :].decode()


def _malformed(reason: str) -> QueryRefusedError:
    return QueryRefusedError(ErrorCode.BAD_ARGUMENTS, f"The form in the request body cannot be read: {reason}.")
