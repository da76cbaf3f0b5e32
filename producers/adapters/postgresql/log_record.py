"""PostgreSQL: one record of the server log, with the members of jsonlog whatever its format.

Source: "Error Reporting and Logging" in PostgreSQL's documentation.
"""

from __future__ import annotations

import csv
import re
from typing import Any

from ...json_fields import Location, RecordError

# The columns of csvlog. Older versions lack the last ones.
_COLUMNS = (
    "timestamp", "user", "dbname", "pid", "connection_from", "session_id", "line_num", "ps", "session_start", "vxid",
    "txid", "error_severity", "state_code", "message", "detail", "hint", "internal_query", "internal_position",
    "context", "statement", "cursor_position", "location", "application_name", "backend_type", "leader_pid", "query_id",
)  # fmt: skip
_FEWEST_COLUMNS = 23
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?"
_LEVELS = "DEBUG[1-5]?|INFO|NOTICE|WARNING|LOG|ERROR|FATAL|PANIC|DETAIL|HINT|QUERY|CONTEXT|LOCATION|STATEMENT|BACKTRACE"
_CSV = re.compile(rf"{_TIME} [A-Za-z0-9+:-]{{1,16}},")
BEGINS_CSV = re.compile(_CSV.pattern.encode())
_STDERR = re.compile(
    rf"(?P<time>{_TIME} [A-Za-z0-9+:-]{{1,16}}) \[(?P<pid>\d{{1,10}})\]:? ?"
    rf"(?P<rest>.{{0,512}}?)\b(?P<level>{_LEVELS}):  ?(?P<message>.*)",
    re.DOTALL,
)
_PARTS = (
    ("session_id", re.compile(r"(?:^|\s)([0-9a-f]{6,16}\.[0-9a-f]{1,8})(?=\s|$)")),
    ("line_num", re.compile(r"(?:^|\s|\[)(\d{1,12})(?:-\d+)?\]?(?=\s|$)")),
    (
        "remote_host",
        re.compile(r"(?:^|\s|=)((?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]*:[0-9a-fA-F:.]+)(?=[\s(]|$)"),
    ),
)
_WHO = re.compile(r"([^\s@]{1,63})@([^\s@]{1,63})")


def parse_line(raw: bytes, location: Location) -> dict[str, Any]:
    """Return the members of a record in csvlog or stderr format.

    Raises:
        RecordError: it is neither.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(location, None, f"not UTF-8 at byte {error.start}") from error
    if _CSV.match(text):
        return _of_csv(text, location)
    found = _STDERR.match(text)
    if found is None:
        raise RecordError(
            location, None, "no record of jsonlog, of csvlog, or of stderr with log_line_prefix '%m [%p] …'"
        )
    values: dict[str, Any] = {
        "timestamp": found["time"],
        "pid": int(found["pid"]),
        "error_severity": found["level"],
        "message": found["message"].replace("\n\t", "\n"),
    }
    rest = found["rest"]
    if who := _WHO.search(rest):
        values["user"], values["dbname"] = who.groups()
        rest = rest.replace(who[0], " ", 1)
    for name, pattern in _PARTS:
        if part := pattern.search(rest):
            values[name] = int(part[1]) if name == "line_num" else part[1]
            rest = rest[: part.start(1)] + rest[part.end(1) :]
    return values


def _of_csv(text: str, location: Location) -> dict[str, Any]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise RecordError(location, None, f"not csvlog: {error}") from error
    cells = rows[0] if len(rows) == 1 else []
    if len(cells) < _FEWEST_COLUMNS:
        raise RecordError(location, None, f"not csvlog: {len(cells)} columns instead of {_FEWEST_COLUMNS} or more")
    values: dict[str, Any] = {name: cell for name, cell in zip(_COLUMNS, cells, strict=False) if cell}
    host, _, port = values.pop("connection_from", "").rpartition(":")
    if host or port:
        values["remote_host"] = host or port
    return values
