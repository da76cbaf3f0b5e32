"""Rows in a file are checked in chunks of whole blocks, however the engine cut the blocks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.verifier import workers
from grantledger.verifier.chunks import CheckedChunk, ChunkTask
from support.examples import few
from support.small_ledger import GENESIS, Rows, cut, entries, seal_parts


def check(file: Path, table: pa.Table, task: ChunkTask, ends: list[int]) -> list[CheckedChunk]:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        for start, end in pairwise([0, *sorted(min(end, len(table)) for end in ends), len(table)]):
            stream.write_table(table.slice(start, end - start))
    return workers.check_file(task, file, SchemaCatalog(), SourceKeys(""))


@few(25)
@given(entries(min_size=1, max_size=30), st.lists(st.integers(0, 30), max_size=5), st.integers(1, 8))
def test_blocks_of_any_size_give_the_same_result(
    tmp_path_factory: pytest.TempPathFactory, found, ends: list[int], least: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "rows"
    batches, head = seal_parts(cut(found, [3]))
    rows, size = Rows.of(batches), head.size
    whole = rows.table(0, size, frozenset())
    task = ChunkTask(GENESIS.origin, 0, size, frozenset(), decoded=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "CHUNK", least)
        checked = check(file, whole, task, ends)
        assert not file.exists()
        assert [chunk.problem for chunk in checked] == [None] * len(checked)
        assert [chunk.first_index for chunk in checked[1:]] == [c.first_index + c.count for c in checked[:-1]]
        assert sum(chunk.count for chunk in checked) == size
        # A row of the next part is there as well, or the last row is there twice, or it is missing.
        if size > 1:
            part = ChunkTask(GENESIS.origin, 0, size - 1, frozenset(), decoded=False, cut=True)
            assert sum(chunk.count for chunk in check(file, whole, part, ends)) == size - 1
        double = pa.concat_tables([whole, whole.slice(size - 1)])
        for table, index in ((double, size - 1), (whole.slice(0, size - 1), size - 1)):
            problem = check(file, table, task, ends)[-1].problem
            assert problem is not None and (problem.check, problem.index) == ("index", index)
