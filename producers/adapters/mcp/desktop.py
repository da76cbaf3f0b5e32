"""MCP: the log of Claude Desktop (``mcp.log``): the time, the level and the server in brackets, and a text.

Two lines of published logs, of an older and a newer version::

    2025-07-20T14:09:08.507Z [info] [weather] Message from client: {"method":"tools/call", …,"jsonrpc":"2.0","id":13}
    2026-05-09T17:26:37.556Z [github] [info] Message from client: {"method":"tools/call", …} { metadata: undefined }

Long messages are cut in the middle (``...[14696 chars truncated]...``), and the newest versions leave out all but the
method (``method="tools/call" id=3 params``).
"""

from __future__ import annotations

import re
from typing import Any

from ...json_fields import DECODER, Location, RecordError

BEGINS = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z \[")
_LINE = re.compile(
    r"(?P<time>\S{20,30}) \[(?P<first>[^\]\n]{0,200})\](?: \[(?P<second>[^\]\n]{0,200})\])? ?(?P<text>.*)", re.DOTALL
)
_LEVELS = frozenset({"debug", "error", "info", "warn"})
_MESSAGE = re.compile(r"Message from (?P<sender>client|server): (?P<body>.*)", re.DOTALL)
_CUT = re.compile(r"\[\d{1,12} chars truncated\]")
_METHOD = re.compile(r'(?:"method":|method=)"(?P<method>[\w/.$-]{1,100})"')
_NAME = re.compile(r'"params":\{"name":"(?P<name>[\w/.:-]{1,200})"')
_ID = re.compile(r'(?:"id":|\bid=)(?P<id>\d{1,18})\b')
_ANSWER = re.compile(r'"(?:result|error)":|(?<=\s)(?:result|error)\b')


def parse_line(raw: bytes, location: Location) -> dict[str, Any]:
    """Return the members of a line, named as in a log of JSON lines; ``notice`` is a text that is no message.

    Raises:
        RecordError: the line is not UTF-8, or not of this log.
    """
    try:
        found = _LINE.fullmatch(raw.decode())
    except UnicodeDecodeError as error:
        raise RecordError(location, None, f"not UTF-8 at byte {error.start}") from error
    if found is None:
        raise RecordError(location, None, "not a line of Claude Desktop's log")
    first, second = found["first"], found["second"]
    server = first if second in _LEVELS else second if first in _LEVELS else first
    line: dict[str, Any] = {"time": found["time"], "server": server}
    message = _MESSAGE.fullmatch(found["text"])
    if message is None:
        return {**line, "notice": found["text"].strip() or "an empty text"}
    body, whole = _body(message["body"], location)
    return {**line, "from": message["sender"], "message": body, **({} if whole else {"truncated": True})}


def _body(text: str, location: Location) -> tuple[dict[str, Any], bool]:
    """Return the message, and whether all of it is there."""
    try:
        value, _ = DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        if _CUT.search(text) is None and not text.startswith(("method=", "id=")):
            raise RecordError(location, "message", "is not JSON") from error
        return _remains(text), False
    if not isinstance(value, dict):
        raise RecordError(location, "message", "must be a JSON object")
    return value, True


def _remains(text: str) -> dict[str, Any]:
    """Return what is left of a message that the client cut."""
    number = _ID.search(text)
    message: dict[str, Any] = {"jsonrpc": "2.0", **({"id": int(number["id"])} if number else {})}
    method, name = _METHOD.search(text), _NAME.search(text)
    if method is not None:
        return {**message, "method": method["method"], "params": {"name": name["name"]} if name else {}}
    answer = _ANSWER.search(text)
    return {**message, ("error" if answer and "error" in answer[0] else "result"): {}}
