"""The checks of payloads and leaves for processes that check millions of entries: the store and the verifier.

They raise the same errors as those of :mod:`.entry` and :mod:`.log_verifier` in about 60 % of the time: the preimages
of many entries are built in one buffer, and the only Python loop is the one that calls SHA-256. Processes that only
follow a log do not import this module, because numpy and pyarrow take memory.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .batch import SealedBatch
from .entry import HASH_SIZE, compare_leaves, compare_payloads, offset_error
from .packing import unpack_hashes

_LEAF = np.dtype(
    [("tag", "S5"), ("flags", "u1"), ("previous", "V32"), ("offset", ">u8"), ("time", ">i8"), ("payload", "V32")]
)
_HASH = np.dtype(f"V{HASH_SIZE}")
# Built from buffers: pa.scalar imports pandas, which takes longer than verifying a small ledger.
_TAG, _EMPTY = pa.Array.from_buffers(
    pa.binary(), 2, [None, pa.py_buffer(np.array([0, 4, 4], np.int32)), pa.py_buffer(b"GLP1")]
)
_NULL = pa.Array.from_buffers(pa.int32(), 1, [None, pa.py_buffer(b"\xff" * 4)])[0]
_MAX_BYTES = 64 << 20
"""Payloads joined at a time."""


def check_hashes(batch: SealedBatch) -> None:
    """Recompute all leaves from the stated payload hashes, as :func:`.log_verifier.check_hashes` does.

    Raises:
        EntryError: an entry differs.
    """
    check_leaves(
        batch.previous_leaf_hash,
        np.frombuffer(batch.flags, np.uint8),
        np.frombuffer(batch.offsets, ">u8"),
        np.frombuffer(batch.append_times, ">i8"),
        batch.payload_hashes,
        stored=batch.leaf_hashes,
    )


def check_leaves(
    previous: bytes,
    flags: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.uint64],
    append_times_ms: npt.NDArray[np.int64],
    payloads: bytes,
    *,
    stored: bytes,
) -> None:
    """Recompute leaf hashes and compare them with the ``stored`` ones, joined; the payload hashes are joined too.

    Each leaf is computed from the stored leaf before it. Up to the first difference that is the computed one.

    Raises:
        EntryError: the first one that differs, or whose offset is not greater than the one before.
    """
    if {len(flags), len(append_times_ms), len(payloads) // HASH_SIZE, len(stored) // HASH_SIZE} != {len(offsets)}:
        raise ValueError("the columns of the leaves differ in length")
    leaves: Any = np.empty(len(offsets), _LEAF)
    leaves["tag"] = b"\x00GLE1"
    leaves["flags"] = flags
    leaves["previous"] = np.frombuffer((previous + stored)[: len(stored)], _HASH)
    leaves["offset"] = offsets
    leaves["time"] = append_times_ms
    leaves["payload"] = np.frombuffer(payloads, _HASH)
    preimages = leaves.view(f"V{_LEAF.itemsize}").tolist()
    computed = b"".join([sha256(preimage).digest() for preimage in preimages])
    compare_leaves(computed, stored)
    increases = offsets[1:] > offsets[:-1]
    if not increases.all():
        raise offset_error(int(np.argmin(increases)) + 1)


def check_payloads(
    keys: pa.BinaryArray, values: pa.BinaryArray, headers: pa.BinaryArray, stored: bytes, erased: frozenset[int]
) -> None:
    """Compare records with their joined payload hashes, except at the positions of erased payloads.

    Raises:
        EntryError: the first one that differs.
    """
    computed = b"".join(payload_hashes(keys, values, headers))
    if computed != stored:
        compare_payloads(unpack_hashes(computed), unpack_hashes(stored), erased)


def payload_hashes(keys: pa.BinaryArray, values: pa.BinaryArray, headers: pa.BinaryArray) -> list[bytes]:
    """Return the payload hash of each of many records."""
    if len(keys) > 1 and keys.nbytes + values.nbytes + headers.nbytes > _MAX_BYTES:
        middle = len(keys) // 2
        columns = (keys, values, headers)
        return payload_hashes(*(column[:middle] for column in columns)) + payload_hashes(
            *(column[middle:] for column in columns)
        )
    preimages = pc.binary_join_element_wise(
        _TAG, _lengths(keys), keys, _lengths(values), values, headers, _EMPTY,
        null_handling="replace", null_replacement=b"",
    )  # fmt: skip
    return [sha256(preimage).digest() for preimage in preimages.to_pylist()]


def _lengths(blobs: pa.BinaryArray) -> pa.BinaryArray:
    """Return the length of each as u32, FFFFFFFF for null."""
    count = len(blobs)
    lengths = pc.fill_null(pc.binary_length(blobs), _NULL)
    packed = np.frombuffer(lengths.buffers()[1], np.int32)[lengths.offset : lengths.offset + count].astype(">i4")
    ends = np.arange(0, 4 * count + 1, 4, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(ends), pa.py_buffer(packed)])
