"""Reads rows of ``entries`` in parts, each into a file, so that memory is bounded by bytes and not only by rows.

Most decoded columns are empty in most logs. A part has only the columns in which a value of its log was seen before,
and one more, :data:`~.chunks.OTHER_VALUES`: whether another decoded column of the row has a value. A part that needs
another column is read again with all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from ..ledger.decoded_entries import ENTRY_COLUMNS
from ..schemas.arrow import DECODED
from ..sinks.clickhouse import is_embedded
from ..sinks.evidence import ARROW
from .chunks import EVIDENCE_COLUMNS, OTHER_VALUES, VARIABLE_COLUMNS, ChunkTask

GROUP = 16
"""Rows whose bytes are counted together where the engine itself does not stop."""
READ_SETTINGS = ARROW | {
    "output_format_arrow_low_cardinality_as_dictionary": 1,
    "output_format_arrow_compression_method": "none",
}
"""Uncompressed, because the rows are read at once on the same machine."""
_PRESENT = {column.name: f"isNotNull(`{column.name}`)" for column in DECODED if column.nullable} | {
    column.name: f"`{column.name}`" for column in DECODED if pa.types.is_boolean(column.type) and not column.nullable
}


def _has_value(name: str, kind: pa.DataType) -> str:
    """Return the condition that a column has a value; empty if there is none that is cheaper than the column."""
    if pa.types.is_binary(kind) or pa.types.is_list(kind):
        return f"notEmpty(`{name}`)"
    return "" if pa.types.is_fixed_size_binary(kind) else _PRESENT.get(name, "")


_HAS_VALUE = {one.name: condition for one in ENTRY_COLUMNS if (condition := _has_value(one.name, one.type))}


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much is read at a time.

    Attributes:
        rows: most rows per query.
        size: bytes per query after which no further block of rows is read. A record can have 4 MiB, so rows do not
            bound the memory.
    """

    rows: int = 1 << 15
    size: int = 64 << 20


READ_LIMITS = ReadLimits()


@dataclass(slots=True)
class RowReader:
    """Reads the rows of logs into files in a folder.

    The embedded engine stops reading after so many bytes and writes the file itself, which costs half as much as
    passing the bytes through Python. A server's rows are counted first.
    """

    client: Client
    folder: Path
    limits: ReadLimits = READ_LIMITS
    _filled: dict[str, set[str]] = field(default_factory=dict)
    """By origin: the decoded columns in which a value was seen. Nothing is known of a log that is not in it."""
    _files: int = 0

    def parts(self, window: ChunkTask, *, whole: bool = False) -> Iterator[tuple[ChunkTask, Path]]:
        """Read the rows of a window, at most as many as the limit, and yield what each file must contain.

        Args:
            whole: read all columns.
        """
        if not is_embedded(self.client):
            sizes = self._group_bytes(window.origin, window.first_index)
            first = window.first_index
            for expected in cut_by_bytes(sizes, window.expected, self.limits.size):
                part = self._part(window, first, expected, whole=whole)
                yield part, self._read(part)
                first += expected
            return
        first, end = window.first_index, window.first_index + window.expected
        while first < end:
            part = self._part(window, first, end - first, whole=whole)
            path = self._read(part, stop=True)
            rows, last = _rows_in(path)
            if rows < part.expected and last == first + rows - 1:
                # The engine has stopped, or the rows after these are missing. The last row is read again with those:
                # it could be there twice.
                part = replace(part, expected=max(1, rows - 1), cut=rows > 1)
                if rows == 1:
                    path.unlink()
                    path = self._read(part)
            yield part, path
            first += part.expected

    def saw(self, origin: str, filled: Iterable[str]) -> None:
        """Remember decoded columns in which a value was seen."""
        self._filled.setdefault(origin, set(_ALWAYS)).update(filled)

    def _part(self, window: ChunkTask, first: int, expected: int, *, whole: bool) -> ChunkTask:
        filled = self._filled.get(window.origin) if window.decoded else ()
        columns = None if whole or filled is None else frozenset(filled)
        return replace(window, first_index=first, expected=expected, columns=columns, cut=False)

    def _read(self, part: ChunkTask, *, stop: bool = False) -> Path:
        """Write the rows of a part to a file, as an Arrow stream. One row more than expected shows duplicates.

        Args:
            stop: whether the engine ends the answer early, after a block of rows, when it has the most bytes.
        """
        decoded = [name for name in ENTRY_COLUMNS.names if part.columns is None or name in part.columns]
        selected = [f"`{name}`" for name in (*EVIDENCE_COLUMNS, *decoded)]
        if part.columns is not None and part.decoded:
            others = [condition for name, condition in _HAS_VALUE.items() if name not in part.columns]
            selected.append(f"({' OR '.join(others) or '0'}) AS {OTHER_VALUES}")
        self._files += 1
        path, first = self.folder / str(self._files), part.first_index
        embedded = is_embedded(self.client)
        quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
        limits = {"max_result_bytes": self.limits.size, "result_overflow_mode": "break"} if stop else {}
        body = self.client.raw_query(
            f"SELECT {', '.join(selected)} FROM entries WHERE origin = {{origin:String}} AND index >= {{first:UInt64}} "  # noqa: S608 - our names
            "AND index < {end:UInt64} ORDER BY index LIMIT {limit:UInt64}"
            + (f" INTO OUTFILE '{quoted}'" if embedded else ""),
            parameters={
                "origin": part.origin, "first": first, "end": first + part.expected, "limit": part.expected + 1,
            },
            settings=READ_SETTINGS | limits,
            fmt="ArrowStream",
        )  # fmt: skip
        if not embedded:
            path.write_bytes(body)
        return path

    def _group_bytes(self, origin: str, first: int) -> Mapping[int, int]:
        """Return the bytes of each group of rows, as many as one query may read."""
        columns = ", ".join(f"`{name}`" for name in VARIABLE_COLUMNS)
        rows = self.client.query(
            f"SELECT intDiv(index - {{first:UInt64}}, {GROUP}) AS g, sum(byteSize({columns})) FROM entries "  # noqa: S608 - our names
            "WHERE origin = {origin:String} AND index >= {first:UInt64} AND index - {first:UInt64} < {rows:UInt64} "
            "GROUP BY g",
            parameters={"origin": origin, "first": first, "rows": self.limits.rows},
        ).result_rows
        return {int(group): int(size) for group, size in rows}


_ALWAYS = frozenset(ENTRY_COLUMNS.names) - _HAS_VALUE.keys()
"""Columns that are always read."""


def _rows_in(path: Path) -> tuple[int, int]:
    """Return the number of rows in a file, and the index of the last one; -1 without rows."""
    rows, last = 0, -1
    with pa.memory_map(os.fspath(path)) as source:
        for batch in pa.ipc.open_stream(source):
            if batch.num_rows:
                rows, last = rows + batch.num_rows, batch.column("index")[-1].as_py()
    return rows, -1 if last is None else last


def cut_by_bytes(sizes: Mapping[int, int], rows: int, limit: int) -> Iterator[int]:
    """Cut rows into parts of at most ``limit`` bytes each, or one group of rows; yield the number of rows of each.

    Args:
        sizes: bytes of each group of :data:`GROUP` rows; a missing group is empty.
    """
    count = size = 0
    for group in range(-(-rows // GROUP)):
        added = min(GROUP, rows - group * GROUP)
        if count and size + sizes.get(group, 0) > limit:
            yield count
            count = size = 0
        count, size = count + added, size + sizes.get(group, 0)
    if count:
        yield count
