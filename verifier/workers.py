"""Processes that hash. Chunks travel as files: copying them through pipes took as long as checking them."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from ..ledger.source_keys import SourceKeys
from ..schemas.catalog import SchemaCatalog
from .chunks import CheckedChunk, ChunkTask, check_chunk

CHUNK = 1 << 13
"""Rows checked at a time: few enough for the processor's caches. The file bounds their bytes."""

_registered = SchemaCatalog(), SourceKeys("")


def pool(processes: int, catalog: SchemaCatalog, sources: SourceKeys) -> Executor:
    """Return an executor for :func:`check_file`: a thread for one process, else that many processes."""
    if processes <= 1:
        return ThreadPoolExecutor(1, initializer=_set_registered, initargs=(catalog, sources))
    # Spawned, not forked: the embedded engine's threads do not survive a fork.
    context = get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_set_registered, initargs=(catalog, sources))


def check_file(task: ChunkTask, path: Path) -> list[CheckedChunk]:
    """Check the rows in a file, an Arrow stream, up to the first problem, and remove the file."""
    checked: list[CheckedChunk] = []
    with pa.memory_map(os.fspath(path)) as source:
        path.unlink()
        table = pa.ipc.open_stream(source).read_all()
        if task.cut:
            table = table.slice(0, task.expected)
        for done in range(0, task.expected, CHUNK):
            last = done + CHUNK >= task.expected
            part = replace(task, first_index=task.first_index + done, expected=min(CHUNK, task.expected - done))
            checked.append(check_chunk(part, table.slice(done, None if last else CHUNK), *_registered))
            if checked[-1].problem is not None or checked[-1].lacking:
                break
    return checked


def _set_registered(catalog: SchemaCatalog, sources: SourceKeys) -> None:
    global _registered  # noqa: PLW0603 - once per process: sent once to each worker, not with every chunk
    _registered = catalog, sources
