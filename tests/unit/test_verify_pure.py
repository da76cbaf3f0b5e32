"""The pure verifier: a sound ledger passes with any batch boundaries; any changed cell is found and located.

A ledger takes long to make and to verify: ``make test-slow`` tries a thousand per property.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.entry import Genesis, chain, payload_hashes
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.ledger.log_verifier import LogVerifier
from grantledger.ledger.merkle import EMPTY_ROOT
from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.verifier.chunks import ChunkTask, check_chunk
from grantledger.verifier.logs import ChunkJoiner, VerifiedLog
from support.examples import few
from support.small_ledger import GENESIS, SIGNER, Rows, cut, entries, records_of, seal_parts

KEY = SIGNER.public_key
CHUNK = 8
"""As the end to end verifier cuts, only smaller: a power of two."""


def verify(
    rows: Rows, size: int, *, key: bytes = KEY, genesis: Genesis = GENESIS, erased: frozenset[int] = frozenset()
):
    """Check rows as `grantledger verify` does: in independent chunks, joined in order."""
    log = VerifiedLog(genesis)
    joiner = ChunkJoiner(log, LogKeys.single(key))
    rows = rows.in_order()  # as the store gives them
    for first in range(0, size, CHUNK):
        expected = min(CHUNK, size - first)
        places = [at for at, index in enumerate(rows.index) if first <= index < first + expected]
        start = places[0] if places else 0
        task = ChunkTask(genesis.origin, first, expected, erased, decoded=False)
        joiner.add(check_chunk(task, rows.table(start, len(places), erased), SchemaCatalog(), SourceKeys("")))
    joiner.finish()
    return log


@st.composite
def ledgers(draw: st.DrawFn, min_size: int = 1) -> tuple[Rows, int]:
    found = draw(entries(min_size=min_size, max_size=30))
    batches, head = seal_parts(cut(found, draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))))
    return Rows.of(batches), head.size


@few(25)
@given(entries(max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_a_sound_ledger_passes_in_chunks_and_as_a_whole(found, sizes: list[int]) -> None:
    batches, head = seal_parts(cut(found, sizes))
    rows = Rows.of(batches)
    in_chunks = verify(rows, head.size)
    assert in_chunks.problem is None
    assert in_chunks.head == (head.size, head.frontier.root())
    assert in_chunks.roots.count == sum(1 for batch in batches if batch.count)
    reader = LogVerifier(GENESIS.origin[:-2], LogKeys.single(KEY))
    heads = [reader.accept(batch) for batch in batches]
    known = {0: EMPTY_ROOT} | {head.size: head.frontier.root() for head in heads}
    assert {size: root for size in range(99) if (root := in_chunks.roots.at(size)) is not None} == known


def _other(data: st.DataObject, column: str, old):
    """Another value that the store's column could hold."""
    blob = st.binary(max_size=12)
    strategies = {
        "index": st.integers(0, 40),
        "flags": st.integers(0, 255),
        "offset": st.integers(0, 2**64 - 1),
        "append_time": st.integers(-(2**63), 2**63 - 1),
        "key": st.none() | blob,
        "value": st.none() | blob,
        "headers": blob,
        "payload_hash": st.binary(min_size=32, max_size=32),
        "previous_leaf_hash": st.binary(min_size=32, max_size=32),
        "leaf_hash": st.binary(min_size=32, max_size=32),
        "sealed_at": st.integers(-(2**63), 2**63 - 1),
        "note": st.just("") | st.text(max_size=20) | _edited(old if column == "note" else ""),
    }
    return data.draw(strategies[column].filter(lambda new: new != old))


def _edited(note: str) -> st.SearchStrategy[str]:
    if not note:
        return st.just("x")
    at = st.integers(0, len(note) - 1)
    return st.tuples(at, st.text(max_size=2)).map(lambda change: note[: change[0]] + change[1] + note[change[0] + 1 :])


COLUMNS = tuple(Rows().columns())


@pytest.mark.parametrize("column", COLUMNS)
@few(25)
@given(ledgers(), st.data())
def test_any_change_of_any_cell_is_found_and_located(
    column: str, ledger: tuple[Rows, int], data: st.DataObject
) -> None:
    rows, size = ledger
    at = data.draw(st.integers(0, size - 1))
    cells = rows.columns()[column]
    cells[at] = _other(data, column, cells[at])
    problem = verify(rows, size).problem
    assert problem is not None
    assert problem.origin == GENESIS.origin
    assert problem.index is not None
    if column in ("sealed_at", "note"):  # these belong to a whole batch, which ends at a row with a note
        ends = [index for index, cell in enumerate(rows.note) if cell and index > at]
        assert problem.index <= min(ends, default=size)
    elif column == "index":
        assert problem.index in (at, cells[at])
    else:
        assert problem.index == at


@few(25)
@given(ledgers(min_size=2), st.data())
def test_a_row_that_is_gone_doubled_or_swapped_is_found_where_it_is(
    ledger: tuple[Rows, int], data: st.DataObject
) -> None:
    rows, size = ledger
    at = data.draw(st.integers(0, size - 2))
    kind = data.draw(st.sampled_from(["gone", "doubled", "swapped"]))
    for name, cells in rows.columns().items():
        if kind == "gone":
            del cells[at]
        elif kind == "doubled":
            cells.insert(at, cells[at])
        elif name != "index":
            cells[at], cells[at + 1] = cells[at + 1], cells[at]
    problem = verify(rows, size).problem
    assert problem is not None
    if kind == "swapped":
        assert problem.index in (at, at + 1)
    else:
        assert (problem.index, problem.check) == (at, "index")


@few(25)
@given(ledgers(min_size=2), st.data())
def test_rows_rewritten_with_hashes_that_fit_are_found_by_the_signature(ledger, data: st.DataObject) -> None:
    """An attacker who can write to the store can also compute hashes, but cannot sign."""

    rows, size = ledger
    at = data.draw(st.integers(0, size - 1))
    rows.value[at] = (rows.value[at] or b"") + b"!"
    found = list(zip(rows.flags, rows.offset, rows.append_time, rows.key, rows.value, rows.headers, strict=True))
    records = records_of(found)
    rows.payload_hash = payload_hashes(records.keys, records.values, records.headers)
    rows.leaf_hash = chain(GENESIS.hash(), records.flags, records.offsets, records.append_times, rows.payload_hash)
    rows.previous_leaf_hash = [GENESIS.hash(), *rows.leaf_hash[:-1]]
    problem = verify(rows, size).problem
    assert problem is not None
    assert problem.check == "checkpoint"
    assert problem.index == next(index for index in range(at, size) if rows.note[index])


@few(25)
@given(ledgers(min_size=2), st.integers(1, 29))
def test_a_log_cut_off_inside_a_batch_is_found(ledger: tuple[Rows, int], keep: int) -> None:
    rows, size = ledger
    keep = min(keep, size - 1)
    ends_a_batch = bool(rows.note[keep - 1])
    for cells in rows.columns().values():
        del cells[keep:]
    problem = verify(rows, keep).problem
    if ends_a_batch:  # only an anchor outside shows that there was more
        assert problem is None
    else:
        assert problem is not None
        assert problem.check == "checkpoint"


@few(25)
@given(ledgers())
def test_another_key_another_genesis(ledger: tuple[Rows, int]) -> None:
    rows, size = ledger
    assert verify(rows, size, key=LocalSigner.generate().public_key).problem is not None
    for genesis in (
        Genesis(GENESIS.origin, bytes(16), 7),
        Genesis(GENESIS.origin, GENESIS.topic_id, 8),
        Genesis(GENESIS.origin, GENESIS.topic_id, 7, 1, bytes(32)),
    ):
        problem = verify(rows, size, genesis=genesis).problem
        assert problem is not None
        assert (problem.index, problem.check) == (0, "chain")


@few(25)
@given(ledgers(), st.data())
def test_an_erased_payload_leaves_the_ledger_sound(ledger: tuple[Rows, int], data: st.DataObject) -> None:
    rows, size = ledger
    at = data.draw(st.integers(0, size - 1))
    rows.key[at], rows.value[at], rows.headers[at] = None, None, b""
    assert verify(rows, size).problem is not None
    assert verify(rows, size, erased=frozenset({at})).problem is None


def test_a_note_moved_to_another_row_is_found() -> None:
    found = [(1, 7 + at, 0, b"k", b"v", bytes(4)) for at in range(9)]
    batches, _ = seal_parts([found[:3], found[3:6], found[6:]])
    for source, target in ((2, 1), (2, 3), (5, 2), (2, 8)):
        rows = Rows.of(batches)
        rows.note[target], rows.note[source] = rows.note[source], ""
        assert verify(rows, 9).problem is not None


def test_an_older_checkpoint_in_place_of_a_newer_one_is_found() -> None:
    found = [(1, 7 + at, 0, b"k", b"v", bytes(4)) for at in range(6)]
    rows = Rows.of(seal_parts([found[:3], found[3:]])[0])
    rows.note[5] = rows.note[2]
    problem = verify(rows, 6).problem
    assert problem is not None
    assert (problem.check, problem.index) == ("checkpoint", 5)


def test_a_batch_boundary_that_was_never_signed_is_found() -> None:
    """Without the checkpoint and time of a middle batch, its entries appear to belong to the next batch."""
    found = [(1, 7 + at, 0, b"k", b"v", bytes(4)) for at in range(6)]
    rows = Rows.of(seal_parts([found[:3], found[3:]])[0])
    rows.note[2] = ""
    rows.sealed_at[:3] = rows.sealed_at[3:]
    assert verify(rows, 6).problem is not None
