"""Checks the rows of a file, as threads do.

Decoding, comparing and reading run without Python's lock, so threads use several processors. Processes would have to
start, and took more processor time per entry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ..ledger.source_keys import SourceKeys
from ..schemas.catalog import SchemaCatalog
from .chunks import CheckedChunk, ChunkTask, check_chunk

CHUNK = 1 << 13
"""Rows checked at a time, or more where the engine wrote larger blocks, which are never cut: few enough for the caches
of a processor. The file bounds their bytes."""


def check_file(task: ChunkTask, path: Path, catalog: SchemaCatalog, sources: SourceKeys) -> list[CheckedChunk]:
    """Check the rows in a file, an Arrow stream, up to the first problem, and remove the file."""
    checked: list[CheckedChunk] = []
    with pa.memory_map(os.fspath(path)) as source:
        path.unlink()
        for part, table in _chunks(task, pa.ipc.open_stream(source)):
            checked.append(check_chunk(part, table, catalog, sources))
            if checked[-1].problem is not None or checked[-1].lacking:
                break
    return checked


def _chunks(task: ChunkTask, blocks: pa.RecordBatchReader) -> Iterator[tuple[ChunkTask, pa.Table]]:
    """Join blocks to chunks. The last chunk has all rows that are left, and those that are too many."""
    waiting: list[pa.RecordBatch] = []
    done = rows = 0
    for block in blocks:
        waiting.append(block)
        rows += block.num_rows
        if rows >= CHUNK and done + rows < task.expected:
            yield _part(task, done, rows), pa.Table.from_batches(waiting)
            waiting, done, rows = [], done + rows, 0
    table = pa.Table.from_batches(waiting, blocks.schema)
    expected = task.expected - done
    yield _part(task, done, expected), table.slice(0, expected) if task.cut else table


def _part(task: ChunkTask, done: int, rows: int) -> ChunkTask:
    return replace(task, first_index=task.first_index + done, expected=rows)
