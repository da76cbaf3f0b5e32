"""Unwraps the record of a tool: text and JSON in, the tool's own record out, with the kinds of its envelopes."""

from __future__ import annotations

import base64
import binascii
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .json_spans import content_of, elements, member_text, parse, parse_list
from .jsonx import JsonxError, is_jsonx, json_of
from .member_envelopes import MemberEnvelope, envelopes_of
from .open_lines import OpenLines, TextLines
from .prefixes import prefix_in
from .split_lines import END_MISSING, SplitLines, Stream, ends_line

MAX_DEPTH = 12
"""The maximum number of envelopes around a record."""
MAX_EXPANDED_BYTES = 64 * 1024 * 1024
"""Of one compressed member."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A record without its envelopes.

    Attributes:
        raw: the record, with the exact bytes that the innermost envelope contains.
        values: the record, if it is a JSON object.
        kinds: the kinds of the envelopes, the outermost first.
        listed: it is an element of a list.
        problem: why it cannot be unwrapped, or an empty string.
        skipped: it is a message of the collector itself.
    """

    raw: bytes
    values: dict[str, Any] | None
    kinds: tuple[str, ...] = ()
    listed: bool = False
    problem: str = ""
    skipped: bool = False


class Unwrapper:
    """Unwraps the records of one file or connection. Joins the parts of lines that a container runtime has split.

    Args:
        is_own: returns whether a JSON object is the record of a known tool. Such a record is never opened.
        limit: the maximum length of a record in bytes.
        split: splits the text of a compressed member into its JSON values and lines.
        lines: knows which lines of text belong together. None: none do.
    """

    def __init__(
        self,
        is_own: Callable[[dict[str, Any]], bool],
        limit: int,
        split: Callable[[Callable[[int], bytes]], Iterator[bytes | None]],
        lines: TextLines | None = None,
    ) -> None:
        self._is_own = is_own
        self._limit = limit
        self._split = split
        self._split_lines = SplitLines(limit)
        self._open_lines = OpenLines(lines, limit)

    def unwrap(
        self, raw: bytes, values: dict[str, Any] | None = None, kinds: tuple[str, ...] = ()
    ) -> Iterator[Unwrapped]:
        """Yield the records in a line or JSON object; none if it is a part whose end is still missing.

        Args:
            raw: the line or object without surrounding white space.
            values: the same as parsed JSON, if it was parsed.
            kinds: the envelopes that were already removed.
        """
        if not kinds and self._open_lines.takes(raw):
            for record, problem in self._open_lines.add(raw):
                yield Unwrapped(record, None, problem=problem)
            return
        yield from self._open(Unwrapped(raw if values is not None else raw.lstrip(), values, kinds))

    @property
    def waiting(self) -> bool:
        """Whether parts of lines wait for their end."""
        return self._split_lines.waiting or self._open_lines.waiting

    @property
    def in_text(self) -> bool:
        """Whether the next line continues the text of a record."""
        return self._open_lines.waiting

    def unfinished(self) -> Iterator[Unwrapped]:
        """Yield the parts of lines whose end is missing. To be called at the end of the input."""
        for stream, part in self._split_lines.unfinished():
            yield Unwrapped(part, None, stream[:1], problem=END_MISSING)
        yield from self.end_text()

    def end_text(self) -> Iterator[Unwrapped]:
        """Yield the text of a record whose end is missing. To be called where a line cannot be read."""
        for record, problem in self._open_lines.unfinished():
            yield Unwrapped(record, None, problem=problem)

    def _open(self, outer: Unwrapped) -> Iterator[Unwrapped]:
        if outer.values is None:
            text = outer.raw.strip()
            # White space at the end of a line belongs to it, if the next line continues it.
            outer = replace(outer, raw=text if text[:1] in (b"{", b"[", b"<") else outer.raw.strip(b"\r\n"))
        values = parse(outer.raw) if outer.values is None else outer.values
        if values is None and len(outer.kinds) < MAX_DEPTH and (listed := parse_list(outer.raw)):
            if (record := _of_fluent(listed)) is not None:
                yield from self._open(replace(outer, raw=record, kinds=(*outer.kinds, "Fluent")))
                return
            if outer.kinds:
                for element, raw in listed:
                    yield from self._open(_element(element, raw, (*outer.kinds, "list of records")))
                return
        if values is None:
            yield from self._line(outer)
            return
        outer = replace(outer, values=values)
        if self._is_own(values):
            yield outer
            return
        if len(outer.kinds) >= MAX_DEPTH:
            yield replace(outer, problem=f"more than {MAX_DEPTH} envelopes around a record")
            return
        if _is_of_collector(values):
            yield replace(outer, skipped=True)
            return
        fallback = [outer]
        for envelope, value in envelopes_of(values):
            inner = self._checked(envelope, value, outer)
            certain = envelope.is_certain(values)
            if certain and (envelope.several or envelope.base64):
                yield from inner  # one at a time
                return
            found = list(inner)
            if any(map(self._is_understood, found)) or (certain and not found):
                yield from found
                return
            if certain and fallback == [outer]:
                fallback = found
        yield from fallback

    def _is_understood(self, found: Unwrapped) -> bool:
        return found.skipped or (found.values is not None and self._is_own(found.values))

    def contains_record(self, values: dict[str, Any]) -> bool:
        """Return whether a JSON object is a record of a known tool, or an envelope of one."""
        return any(map(self._is_understood, self.unwrap(json.dumps(values).encode())))

    def _checked(self, envelope: MemberEnvelope, value: Any, outer: Unwrapped) -> Iterator[Unwrapped]:
        try:
            yield from self._inner(envelope, value, outer)
        except ValueError as error:  # the text is parsed again, deeper in the stack: it may be nested too deeply now
            yield replace(outer, problem=f"not JSON: {error}")

    def _inner(self, envelope: MemberEnvelope, value: Any, outer: Unwrapped) -> Iterator[Unwrapped]:
        """Yield the records in an envelope."""
        kinds = (*outer.kinds, envelope.kind)
        if envelope.several:
            text = member_text(outer.raw.decode(), envelope.path)
            for element, start, end in elements(text):
                yield from self._open(_element(element, text[start:end].encode(), kinds))
        elif isinstance(value, dict):
            raw = member_text(outer.raw.decode(), envelope.path).encode()
            yield from self._open(replace(outer, raw=raw, values=value, kinds=kinds))
        elif envelope.base64:
            yield from self._decoded(value, replace(outer, kinds=kinds))
        elif isinstance(value, list):
            yield from self._open(replace(outer, raw=bytes(value), values=None, kinds=kinds))
        else:
            raw = _content(value)
            source = _stream_of(outer.values or {}) if envelope.path == ("log",) else None
            if source is not None:
                marked = (outer.values or {}).get("_p", (outer.values or {}).get("logtag"))
                stream = (envelope.kind, *source)
                is_end = marked == "F" if marked in ("P", "F") else ends_line(raw, self._split_lines.has(stream))
                yield from self._join(stream, raw, not is_end, replace(outer, kinds=kinds))
                return
            yield from self._open(replace(outer, raw=raw, values=None, kinds=kinds))

    def _line(self, outer: Unwrapped) -> Iterator[Unwrapped]:
        line = outer.raw
        if outer.kinds and line.startswith(b"CWL CONTROL MESSAGE:"):
            yield replace(outer, skipped=True)
            return
        if is_jsonx(line):
            outer = replace(outer, kinds=(*outer.kinds, "JSONx"))
            try:
                raw = json_of(line)
            except JsonxError as error:
                yield replace(outer, problem=str(error))
            else:
                yield from self._open(replace(outer, raw=raw))
            return
        if line.startswith(b'"') and (content := content_of(line)) is not None and len(outer.kinds) < MAX_DEPTH:
            found = list(self._open(replace(outer, raw=content, kinds=(*outer.kinds, "JSON string"))))
            yield from found if any(map(self._is_understood, found)) else (outer,)
            return
        prefix = prefix_in(line) if len(outer.kinds) < MAX_DEPTH else None
        if prefix is None:
            yield outer
            return
        kinds = (*outer.kinds, prefix.kind)
        if prefix.part_of is not None:
            stream = (prefix.kind, prefix.part_of.decode())
            yield from self._join(stream, prefix.rest, prefix.more, replace(outer, kinds=kinds))
        else:
            yield from self._open(replace(outer, raw=prefix.rest, kinds=kinds))

    def _join(self, stream: Stream, part: bytes, more: bool, outer: Unwrapped) -> Iterator[Unwrapped]:
        for line, problem in self._split_lines.add(stream, part, more):
            found = replace(outer, raw=line, values=None, problem=problem)
            yield from (found,) if problem else self._open(found)

    def _decoded(self, value: str, outer: Unwrapped) -> Iterator[Unwrapped]:
        """Yield the records in a Base64 text."""
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            yield replace(outer, problem="not Base64")
            return
        read = io.BytesIO(data).read if data[:2] != b"\x1f\x8b" else _bounded_gzip(data)
        try:
            for raw in self._split(read):
                if raw is None:
                    yield replace(outer, problem=f"longer than {self._limit} bytes")
                else:
                    yield from self._open(replace(outer, raw=raw, values=None))
        except (OSError, EOFError, zlib.error) as error:
            yield replace(outer, problem=f"damaged gzip ({error})")


def _bounded_gzip(data: bytes) -> Callable[[int], bytes]:
    decoder = zlib.decompressobj(wbits=31)
    left, given = data, 0

    def read(limit: int) -> bytes:
        nonlocal left, given, decoder
        while left or not decoder.eof:
            piece = decoder.decompress(left, limit)
            left = decoder.unconsumed_tail or decoder.unused_data
            given += len(piece)
            if given > MAX_EXPANDED_BYTES:
                raise zlib.error(f"more than {MAX_EXPANDED_BYTES} bytes")
            if decoder.eof and left:
                decoder = zlib.decompressobj(wbits=31)
            if piece:
                return piece
            if not left and not decoder.eof:
                raise EOFError("it ends early")
        return b""

    return read


def _stream_of(values: dict[str, Any]) -> tuple[str, ...] | None:
    """Return what identifies the stream of a container's line, or None if the object names none."""
    if not isinstance(values.get("stream"), str):
        return None
    pod = values.get("kubernetes")
    names = [values["stream"], *(values.get(name) for name in ("container_id", "filename", "tag", "pod"))]
    if isinstance(pod, dict):
        names += [pod.get("pod_id"), pod.get("pod_name"), pod.get("container_name")]
    return tuple(str(name)[:256] for name in names if name is not None)


def _is_of_collector(values: dict[str, Any]) -> bool:
    """Return whether an object is CloudWatch's test of a subscription, or a line of Elasticsearch's bulk format."""
    if values.get("messageType") == "CONTROL_MESSAGE":
        return "logEvents" in values
    action = values.get("index", values.get("create"))
    return len(values) == 1 and isinstance(action, dict) and action.keys() <= {"_index", "_id", "_type", "routing"}


def _of_fluent(listed: list[tuple[Any, bytes]]) -> bytes | None:
    """Return the record in ``[time, record]``, ``[[time, metadata], record]`` or ``[tag, time, record]``, or None."""
    *before, (record, raw) = listed
    times = [one[0] if isinstance(one, list) and one else one for one, _ in before]
    if not isinstance(record, dict) or not times or len(times) > 2:
        return None
    return raw if type(times[-1]) in (int, float) and all(isinstance(one, str) for one in times[:-1]) else None


def _element(value: Any, raw: bytes, kinds: tuple[str, ...]) -> Unwrapped:
    """Return an element of a list: an object, or the content of a string."""
    if isinstance(value, dict):
        return Unwrapped(raw, value, kinds, True)
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) for one in value[:2]):
        value = value[1]  # Loki: [time, line]
    return Unwrapped(_content(value) if isinstance(value, str) else raw, None, kinds, True)


def _content(string: str) -> bytes:
    return string.encode("utf-8", "surrogatepass")
