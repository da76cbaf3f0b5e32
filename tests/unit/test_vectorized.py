"""The vectorized checks compute the same hashes and find the same first difference as the plain ones."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger import entry, log_verifier, vectorized
from grantledger.ledger.batch import SealedBatch
from grantledger.ledger.entry import EntryError
from grantledger.ledger.packing import unpack_hashes
from support.small_ledger import entries, seal_parts

BLOB = st.binary(max_size=20)
RECORDS = st.lists(st.tuples(st.none() | BLOB, st.none() | BLOB, BLOB), min_size=1, max_size=20)


def error_of(check, *arguments, **named) -> tuple[int, str, str] | None:
    try:
        check(*arguments, **named)
    except EntryError as error:
        return error.position, error.check, str(error)
    return None


def arrow(records: list[tuple[bytes | None, bytes | None, bytes]], skipped: int) -> list[pa.Array]:
    """Columns that begin in the middle of their buffers, as the slices of a table do."""
    padded = [(b"skipped", None, b"skipped")] * skipped + records
    return [pa.array(column, pa.binary())[skipped:] for column in zip(*padded, strict=True)]


@given(RECORDS, st.integers(0, 9), st.sampled_from([1, 100, 1 << 20]))
def test_payload_hashes_are_the_same_however_they_are_cut(records, skipped: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectorized, "_MAX_BYTES", most)
        found = vectorized.payload_hashes(*arrow(records, skipped))
    assert found == entry.payload_hashes(*zip(*records, strict=True))


@given(RECORDS, st.integers(0, 9), st.data())
def test_the_same_payload_is_found_to_differ(records, skipped: int, data: st.DataObject) -> None:
    stored = entry.payload_hashes(*zip(*records, strict=True))
    positions = st.integers(0, len(records) - 1)
    for position in data.draw(st.lists(positions, max_size=3)):
        stored[position] = data.draw(st.binary(min_size=32, max_size=32))
    erased = frozenset(data.draw(st.lists(positions, max_size=3)))
    plain = error_of(entry.check_payloads, *zip(*records, strict=True), stored, erased)
    assert error_of(vectorized.check_payloads, *arrow(records, skipped), b"".join(stored), erased) == plain


def sealed(found) -> SealedBatch:
    batches, _ = seal_parts([found])
    return batches[0]


@given(entries(min_size=1, max_size=40))
def test_sealed_leaves_pass(found) -> None:
    vectorized.check_hashes(sealed(found))


@given(entries(min_size=1, max_size=40), st.data())
def test_the_same_leaf_or_offset_is_found_to_differ(found, data: st.DataObject) -> None:
    batch = sealed(found)
    names = ("previous_leaf_hash", "flags", "offsets", "append_times", "payload_hashes", "leaf_hashes")
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        column = bytearray(getattr(batch, name))
        column[data.draw(st.integers(0, len(column) - 1))] ^= data.draw(st.integers(1, 255))
        batch = replace(batch, **{name: bytes(column)})
    plain = error_of(log_verifier.check_hashes, batch)
    assert error_of(vectorized.check_hashes, batch) == plain


@given(st.lists(st.sampled_from([0, 1, 2, 5, 2**63, 2**64 - 1]), min_size=1, max_size=6))
def test_the_same_offset_does_not_increase(offsets: list[int]) -> None:
    count, payloads = len(offsets), bytes(32 * len(offsets))
    flags, times = [1] * count, [-1] * count
    leaves = b"".join(entry.chain(bytes(32), flags, offsets, times, unpack_hashes(payloads)))
    plain = error_of(entry.check_leaves, bytes(32), flags, offsets, times, unpack_hashes(payloads), stored=leaves)
    arrays = np.array(flags, np.uint8), np.array(offsets, np.uint64), np.array(times, np.int64)
    assert error_of(vectorized.check_leaves, bytes(32), *arrays, payloads, stored=leaves) == plain


def test_an_empty_batch_passes_and_columns_of_other_lengths_do_not() -> None:
    batch = sealed([])
    vectorized.check_hashes(batch)
    with pytest.raises(ValueError, match="length"):
        vectorized.check_hashes(replace(batch, flags=b"\x01"))


def test_checking_does_not_import_pandas() -> None:
    code = (
        "import sys, pyarrow as pa, numpy as np; from grantledger.ledger import vectorized as v;"
        "ends = pa.py_buffer(np.array([0, 1, 2], np.int32));"
        "blobs = pa.Array.from_buffers(pa.binary(), 2, [pa.py_buffer(b'\\x01'), ends, pa.py_buffer(b'ab')]);"
        "v.payload_hashes(blobs, blobs, blobs); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
