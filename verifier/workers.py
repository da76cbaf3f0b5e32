"""The processes that hash for the verifier. Chunks go to them as files: copying through pipes took as long again."""

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
from .logs import CheckedChunk

CHUNK = 1 << 13
"""Rows checked at a time: what belongs to them stays in the processor's caches. A power of two, so that the tree over a
chunk is a subtree of the log's."""

_catalog_here = SchemaCatalog()


def pool(processes: int, catalog: SchemaCatalog) -> Executor:
    """Return what runs :func:`check_file`: that many processes, or this one for one or none."""
    if processes <= 1:
        _prepare(catalog)
        return _Inline()
    # Spawned, not forked: the embedded engine's threads do not survive a fork.
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_prepare, initargs=(catalog,))


def check_file(task: ChunkTask, path: Path) -> list[CheckedChunk]:
    """Check the rows that stand in an Arrow stream in a file, and remove the file; ends at the first problem."""
    checked: list[CheckedChunk] = []
    with pa.memory_map(os.fspath(path)) as source:
        path.unlink()
        table = pa.ipc.open_stream(source).read_all()
        for done in range(0, task.expected, CHUNK):
            last = done + CHUNK >= task.expected
            part = replace(task, first_index=task.first_index + done, expected=min(CHUNK, task.expected - done))
            checked.append(check_rows(part, table.slice(done, None if last else CHUNK), _catalog_here))
            if checked[-1].problem is not None:
                break
    return checked


def _prepare(catalog: SchemaCatalog) -> None:
    global _catalog_here  # noqa: PLW0603 - one a process: sent once to each worker, not with every chunk
    _catalog_here = catalog


class _Inline(Executor):
    """Runs on the spot, for ledgers too small to share out."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future
