"""Output formats: which are served, and how the blocks of a streamed result become one valid answer.

The embedded engine streams a result as blocks, each a complete document of the format. Formats without a header can
be put together as they are; a header of names must be dropped from all blocks but the first; Arrow blocks are written
again as one stream. What has a header and a footer (JSON, Parquet, Pretty…) is made in one piece instead.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Protocol

from .errors import UNKNOWN_FORMAT, QueryRefusedError


class Joiner(Protocol):
    """Puts the blocks of one result together."""

    def block(self, data: bytes) -> bytes:
        """Take a block as the engine made it, return the bytes to send for it."""

    def finish(self) -> bytes:
        """Return the bytes that end the answer."""


class _Plain:
    def block(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _HeaderOnce:
    """Keep the header of the first block only; `measure` gives its length in bytes."""

    def __init__(self, measure: Callable[[bytes], int]) -> None:
        self._measure = measure
        self._header: bytes | None = None

    def block(self, data: bytes) -> bytes:
        if self._header is None:
            self._header = data[: self._measure(data)]
            return data
        if not data.startswith(self._header):
            raise ValueError("a block of the result does not repeat the header of the first")
        return data[len(self._header) :]

    def finish(self) -> bytes:
        return b""


class _Arrow:
    """Write the record batches of all blocks as one Arrow stream or file."""

    def __init__(self, opener: str) -> None:
        self._opener = opener
        self._sink = io.BytesIO()
        self._sent = 0
        self._writer: Any = None

    def block(self, data: bytes) -> bytes:
        import pyarrow as pa

        with pa.ipc.open_stream(data) as reader:
            if self._writer is None:
                # The file's footer holds offsets from the start, so the sink counts on although it is emptied.
                self._writer = getattr(pa.ipc, self._opener)(_Counting(self._sink), reader.schema)
            for batch in reader:
                self._writer.write_batch(batch)
        return self._take()

    def finish(self) -> bytes:
        if self._writer is not None:
            self._writer.close()
        return self._take()

    def _take(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data


class _Counting(io.RawIOBase):
    """A sink that reports its position since the start, whatever has been taken out of the buffer meanwhile."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = self._buffer.write(data)
        self._written += count
        return count

    def tell(self) -> int:
        return self._written


def _lines(count: int, quote: bytes | None = None) -> Callable[[bytes], int]:
    """The length of the first `count` lines; a line break between two `quote` characters does not end a line."""

    def measure(data: bytes) -> int:
        position = 0
        for _ in range(count):
            while True:
                end = data.index(b"\n", position) + 1
                # An even number of quotes so far means that this break is outside of them.
                if quote is None or data.count(quote, 0, end) % 2 == 0:
                    break
                position = end
            position = end
        return position

    return measure


def _row_binary(types: bool) -> Callable[[bytes], int]:
    """The length of a RowBinaryWithNames[AndTypes] header: a count, then names, then types, with varint lengths."""

    def measure(data: bytes) -> int:
        count, position = read_varint(data, 0)
        for _ in range(count * (2 if types else 1)):
            length, position = read_varint(data, position)
            position += length
        return position

    return measure


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read ClickHouse's variable-length integer (LEB128) at `position`; return the value and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def varint(value: int) -> bytes:
    """Write a non-negative integer as ClickHouse's variable-length integer (LEB128)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def native_header(columns: list[tuple[str, str]]) -> bytes:
    """A block of the Native format with these columns (name, type) and no rows."""
    parts = [varint(len(columns)), varint(0)]
    for name, type_name in columns:
        parts += [varint(len(text)) + text for text in (name.encode(), type_name.encode())]
    return b"".join(parts)


_STREAMED: dict[str, Callable[[], Joiner]] = {
    **dict.fromkeys(
        (
            "Native",
            "RowBinary",
            "TabSeparated",
            "TSV",
            "TabSeparatedRaw",
            "TSVRaw",
            "CSV",
            "TSKV",
            "JSONEachRow",
            "JSONLines",
            "NDJSON",
            "JSONStringsEachRow",
            "JSONCompactEachRow",
            "JSONCompactStringsEachRow",
        ),
        _Plain,
    ),
    **dict.fromkeys(
        ("TabSeparatedWithNames", "TSVWithNames", "TabSeparatedRawWithNames", "TSVRawWithNames"),
        lambda: _HeaderOnce(_lines(1)),
    ),
    **dict.fromkeys(
        (
            "TabSeparatedWithNamesAndTypes",
            "TSVWithNamesAndTypes",
            "JSONCompactEachRowWithNamesAndTypes",
            "JSONCompactStringsEachRowWithNamesAndTypes",
        ),
        lambda: _HeaderOnce(_lines(2)),
    ),
    "JSONCompactEachRowWithNames": lambda: _HeaderOnce(_lines(1)),
    "JSONCompactStringsEachRowWithNames": lambda: _HeaderOnce(_lines(1)),
    "CSVWithNames": lambda: _HeaderOnce(_lines(1, b'"')),
    "CSVWithNamesAndTypes": lambda: _HeaderOnce(_lines(2, b'"')),
    "RowBinaryWithNames": lambda: _HeaderOnce(_row_binary(types=False)),
    "RowBinaryWithNamesAndTypes": lambda: _HeaderOnce(_row_binary(types=True)),
    "Arrow": lambda: _Arrow("new_file"),
    "ArrowStream": lambda: _Arrow("new_stream"),
}
# Not here: formats that read a schema or template file (Protobuf, CapnProto, Template), and those of one cell or none.
_BUFFERED = (
    "JSON",
    "JSONStrings",
    "JSONCompact",
    "JSONCompactStrings",
    "JSONColumns",
    "JSONColumnsWithMetadata",
    "JSONCompactColumns",
    "JSONObjectEachRow",
    "PrettyJSONEachRow",
    "Parquet",
    "Pretty",
    "PrettyNoEscapes",
    "PrettyCompact",
    "PrettyCompactNoEscapes",
    "PrettyCompactMonoBlock",
    "PrettySpace",
    "PrettySpaceNoEscapes",
    "Vertical",
    "Markdown",
    "Values",
    "XML",
    "Null",
)
_SPELLING = {name.lower(): name for name in (*_STREAMED, *_BUFFERED)}


def resolve(name: str) -> str:
    """Return the engine's spelling of an output format; raises QueryRefusedError (73) for one that is not served."""
    try:
        return _SPELLING[name.lower()]
    except KeyError:
        raise QueryRefusedError(UNKNOWN_FORMAT, f"Format {name} is not served here.") from None


def joiner(name: str) -> Joiner | None:
    """A fresh joiner for a format that can be streamed, None for one that is made in one piece."""
    make = _STREAMED.get(name)
    return make() if make else None


def engine_format(name: str) -> str:
    """The format to ask the engine's blocks in: Arrow files are put together from Arrow streams."""
    return "ArrowStream" if name == "Arrow" else name


def content_type(name: str) -> str:
    """The media type that ClickHouse sends for a format."""
    if name.startswith("TSV") or name.startswith("TabSeparated"):
        return "text/tab-separated-values; charset=UTF-8"
    if name.startswith("CSV"):
        return "text/csv; charset=UTF-8"
    if "EachRow" in name or name in {"JSONLines", "NDJSON"}:
        return "application/x-ndjson; charset=UTF-8"
    if name.startswith("JSON"):
        return "application/json; charset=UTF-8"
    if name in {"Native", "Parquet", "Arrow", "ArrowStream"} or name.startswith("RowBinary"):
        return "application/octet-stream"
    return "text/plain; charset=UTF-8"
