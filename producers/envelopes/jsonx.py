"""Vault's audit format ``jsonx``: JSON as XML. Source: "JSONx" in IBM's documentation.

Vault writes the members of a record without the object around them: https://github.com/jefferai/jsonx, EncodeJSONBytes.
"""

from __future__ import annotations

import json
import re
from typing import Any
from xml.parsers import expat

MAX_DEPTH = 128
_TAG = re.compile(rb"\s*(?:<\?xml[^>]{0,256}\?>\s*)?<json:(?:object[\s>/]|\w+\s+name=)")
_MEMBER = re.compile(rb"<json:\w+\s+name=")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


class JsonxError(ValueError):
    """The XML is not a record in JSONx."""


def is_jsonx(line: bytes) -> bool:
    """Return whether a line starts like a record in JSONx."""
    return _TAG.match(line) is not None


def json_of(line: bytes) -> bytes:
    """Return the record as compact JSON.

    Raises:
        JsonxError: not well-formed, not JSONx, nested too deeply, or with a document type or an entity.
    """
    parser = expat.ParserCreate("utf-8")
    builder = _Builder()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    # No document type: no entities, so the text cannot expand.
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        line = line.strip()
        members = _MEMBER.match(line) is not None
        parser.Parse(b"<json:object>%b</json:object>" % line if members else line, True)
        result = builder.result
        if members and len(result) == 1 and isinstance(one := next(iter(result.values())), dict):
            result = one  # an object with a name is the record
        return json.dumps(result, separators=(",", ":"), ensure_ascii=False).encode()
    except (expat.ExpatError, UnicodeEncodeError, KeyError) as error:
        raise JsonxError(f"not JSONx: {error}") from error


class _Builder:
    def __init__(self) -> None:
        self.result: Any = None
        self._open: list[tuple[str, str | None, Any]] = []
        self._text: list[str] = []

    def doctype(self, *_: object) -> None:
        raise JsonxError("not JSONx: has a document type")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise JsonxError("nested too deeply")
        value: Any = {"json:object": {}, "json:array": []}.get(tag)
        self._open.append((tag, attributes.get("name"), value))
        self._text = []

    def text(self, data: str) -> None:
        self._text.append(data)

    def end(self, tag: str) -> None:
        _, name, value = self._open.pop()
        if value is None:
            value = _scalar(tag, "".join(self._text))
        self._text = []
        if not self._open:
            if not isinstance(value, dict):
                raise JsonxError("not JSONx: must be an object")
            self.result = value
            return
        parent = self._open[-1][2]
        if isinstance(parent, list):
            parent.append(value)
        elif isinstance(parent, dict) and name is not None and name not in parent:
            parent[name] = value
        else:
            raise JsonxError("not JSONx: a value without a name, or two of one name")


def _scalar(tag: str, text: str) -> Any:
    if tag == "json:string":
        return text
    if tag == "json:number" and len(text) <= 64 and _NUMBER.fullmatch(text.strip()):
        return json.loads(text)
    if tag == "json:boolean" and text.strip() in ("true", "false"):
        return text.strip() == "true"
    if tag == "json:null":
        return None
    raise JsonxError(f"not JSONx: {tag[:40]!r} with {text[:40]!r}")
