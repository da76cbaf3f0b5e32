"""Where a verification goes on: the file, and the entries after any checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.keys import LogKeys
from grantledger.ledger.note import Checkpoint
from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.verifier.chunks import ChunkTask, check_chunk
from grantledger.verifier.logs import ChunkJoiner, VerifiedLog
from grantledger.verifier.remembered_heads import HeadsFileError, RememberedHeads, read_state, write_state
from grantledger.verifier.since import LogHead, Since
from support.examples import few
from support.small_ledger import GENESIS, SIGNER, Rows, cut, entries, seal_parts

HEAD = LogHead(b"g" * 32, 3, b"f" * 64, b"l" * 32, 9)
SINCE = Since(Checkpoint("d/anchors/0/1", 5, b"r" * 32), {"d/t/0/0": HEAD})


def joined(rows: Rows, first: int, size: int, anchored: int = 0, since: LogHead | None = None) -> VerifiedLog:
    log = VerifiedLog(GENESIS)
    joiner = ChunkJoiner(log, LogKeys.single(SIGNER.public_key), anchored, since)
    if first < size:
        task = ChunkTask(GENESIS.origin, first, size - first, frozenset(), decoded=False)
        table = rows.table(first, size - first, frozenset())
        joiner.add(check_chunk(task, table, SchemaCatalog(), SourceKeys("")))
    joiner.finish()
    return log


@few(25)
@given(entries(min_size=1, max_size=30), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_a_log_goes_on_after_any_checkpoint(found, sizes: list[int], data: st.DataObject) -> None:
    batches, head = seal_parts(cut(found, sizes))
    rows = Rows.of(batches)
    size = data.draw(st.sampled_from([batch.size for batch in batches if batch.count]))
    whole = joined(rows, 0, head.size, anchored=size)
    assert whole.problem is None and whole.anchored is not None and whole.anchored.size == size
    rest = joined(rows, size, head.size, anchored=size, since=whole.anchored)
    assert rest.problem is None and rest.head == whole.head and rest.anchored == whole.anchored
    assert rest.roots.first == size and rest.roots.at(size) == whole.roots.at(size)
    if size < head.size:
        other = LogHead(HEAD.genesis, size, whole.anchored.frontier, b"x" * 32, whole.anchored.next_offset)
        problem = joined(rows, size, head.size, since=other).problem
        assert problem is not None and (problem.check, problem.index) == ("chain", size)
        frontier = bytes([whole.anchored.frontier[0] ^ 1]) + whole.anchored.frontier[1:]
        other = LogHead(HEAD.genesis, size, frontier, whole.anchored.last_leaf, whole.anchored.next_offset)
        problem = joined(rows, size, head.size, since=other).problem
        assert problem is not None and problem.check == "checkpoint"


def test_the_file_keeps_where_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = RememberedHeads("d").remember("clickhouse", {"d/t/0/0": (4, "00" * 32)}, SINCE)
    write_state(path, state)
    assert read_state(path, "d") == state
    assert state.remember("clickhouse", {}).going_on == state.remember("kafka", {}, SINCE).going_on == SINCE


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("anchors", ["d/anchors/0/1", 0, "00" * 32]),
        ("anchors", ["d/anchors/0/1", 5, "00"]),
        ("anchors", ["no origin", 5, "00" * 32]),
        ("anchors", None),
        ("logs", {"d/t/0/0": ["00" * 32, 3, "00" * 32, "00" * 32, 9]}),
        ("logs", {"d/t/0/0": ["00" * 32, "3", "00" * 64, "00" * 32, 9]}),
        ("logs", {"d/t/0/0": ["00" * 32, 3, "00" * 64, "00" * 32, -1]}),
        ("logs", {"no origin": ["00" * 32, 3, "00" * 64, "00" * 32, 9]}),
        ("logs", []),
    ],
)
def test_a_file_that_says_nonsense_is_refused(tmp_path: Path, part: str, value: object) -> None:
    path = tmp_path / "state.json"
    since = SINCE.as_json() | {part: value}
    path.write_text(json.dumps({"version": 1, "deployment": "d", "heads": {}, "since": since}))
    with pytest.raises(HeadsFileError, match="not a state file"):
        read_state(path, "d")


def test_heads_and_anchors_before_are_left_out() -> None:
    heads = {"d/t/0/0": (2, "a"), "d/t/1/0": (2, "b"), "d/anchors/0/0": (9, "c"), "d/anchors/0/1": (4, "d")}
    newer = {"d/t/0/0": (3, "a"), "d/anchors/0/1": (5, "c"), "d/anchors/0/2": (1, "d")}
    kept = RememberedHeads("d", {"kafka": heads, "clickhouse": newer}).since(SINCE)
    assert kept.heads == {"kafka": {"d/t/1/0": (2, "b")}, "clickhouse": newer}
