"""Columns of a sealed batch: Python lists to packed big-endian bytes and back (docs/ledger.md, "Sealed batch")."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate

U32, U64, I64 = "I", "Q", "q"
NULL = 0xFFFFFFFF
"""The length of a null key or value."""
_SWAP = sys.byteorder == "little"


def pack(type_code: str, numbers: Iterable[int]) -> bytes:
    """Pack numbers as big-endian ``U32``, ``U64`` or ``I64``."""
    packed = array(type_code, numbers)
    if _SWAP:
        packed.byteswap()
    return packed.tobytes()


def unpack(type_code: str, packed: bytes) -> list[int]:
    """Undo :func:`pack`."""
    numbers: array[int] = array(type_code)
    numbers.frombytes(packed)
    if _SWAP:
        numbers.byteswap()
    return numbers.tolist()


def pack_blobs(blobs: Sequence[bytes | None]) -> tuple[bytes, bytes]:
    """Return the lengths (u32 each, FFFFFFFF for null) and all bytes joined."""
    try:  # without a null, both are one call into C
        return pack(U32, map(len, blobs)), b"".join(blobs)  # type: ignore[arg-type]
    except TypeError:
        lengths = pack(U32, [NULL if blob is None else len(blob) for blob in blobs])
        return lengths, b"".join([blob for blob in blobs if blob is not None])


def unpack_blobs(lengths: bytes, joined: bytes) -> list[bytes | None]:
    """Undo :func:`pack_blobs`; raise ValueError if the lengths do not add up to the joined bytes."""
    sizes = unpack(U32, lengths)
    ends = list(accumulate(0 if size == NULL else size for size in sizes))
    if (ends[-1] if ends else 0) != len(joined):
        raise ValueError(f"lengths add up to {ends[-1] if ends else 0}, there are {len(joined)} bytes")
    return [None if size == NULL else joined[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def unpack_hashes(joined: bytes) -> list[bytes]:
    """Split joined 32-byte hashes."""
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]
