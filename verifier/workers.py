"""Processes that hash. Chunks travel as files: copying them through pipes took as long as checking them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..schemas.catalog import SchemaCatalog
from .columns import ChunkTask, check_rows
from .entries import CheckedChunk

CHUNK = 1 << 13
"""Rows checked at a time: few enough for the processor's caches, and a power of two, so that the tree over a chunk is a
subtree of the log's."""

_catalog = SchemaCatalog()


def pool(processes: int, catalog: SchemaCatalog) -> Executor:
    """Return an executor for :func:`check_file`: this process for one or none, else that many processes."""
    if processes <= 1:
        _set_catalog(catalog)
        return _Inline()
    # Spawned, not forked: the embedded engine's threads do not survive a fork.
    return ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_set_catalog, initargs=(catalog,)
    )


def check_file(task: ChunkTask, path: Path) -> list[CheckedChunk]:
    """Check the rows in a file, an Arrow stream, up to the first problem, and remove the file."""
    checked: list[CheckedChunk] = []
    with pa.memory_map(os.fspath(path)) as source:
        path.unlink()
        table = pa.ipc.open_stream(source).read_all()
        for done in range(0, task.expected, CHUNK):
            last = done + CHUNK >= task.expected
            part = replace(task, first_index=task.first_index + done, expected=min(CHUNK, task.expected - done))
            checked.append(check_rows(part, table.slice(done, None if last else CHUNK), _catalog))
            if checked[-1].problem is not None:
                break
    return checked


def _set_catalog(catalog: SchemaCatalog) -> None:
    global _catalog  # noqa: PLW0603 - once per process: sent once to each worker, not with every chunk
    _catalog = catalog


class _Inline(Executor):
    """Runs calls immediately in this process, for ledgers too small to share out."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future
