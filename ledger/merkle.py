"""The Merkle tree of RFC 6962 section 2.1, appended to at its right edge."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import reduce
from hashlib import sha256

from .entry import HASH_SIZE

_pairs = struct.Struct("64s").iter_unpack
EMPTY_ROOT = sha256(b"").digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(b"".join(leaves))
    return frontier.root()


def subtrees(first: int, leaves: bytes) -> list[tuple[int, bytes]]:
    """Split joined leaf hashes into the largest complete subtrees of the tree, from left to right.

    Args:
        first: the index of the first leaf.

    Returns:
        Level and root of each. The leaves are hashed level by level, in one short loop per level.
    """
    digest_of = sha256
    lefts: list[tuple[int, bytes]] = []
    rights: list[tuple[int, bytes]] = []
    run, position, level = leaves, first, 0
    while run:
        if position & 1:
            lefts.append((level, run[:HASH_SIZE]))
            run, position = run[HASH_SIZE:], position + 1
        if len(run) // HASH_SIZE & 1:
            rights.append((level, run[-HASH_SIZE:]))
            run = run[:-HASH_SIZE]
        run = b"".join([digest_of(b"\x01" + pair).digest() for (pair,) in _pairs(run)])
        position >>= 1
        level += 1
    return lefts + rights[::-1]


class Frontier:
    """The complete subtrees of a tree, one per set bit of its size: enough to append and to compute the root."""

    __slots__ = ("_levels", "size")

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[bytes | None] = []

    @classmethod
    def unpack(cls, size: int, packed: bytes) -> Frontier:
        """Undo :meth:`pack`; raise ValueError unless there are 32 bytes per set bit of the size."""
        if size < 0 or len(packed) != HASH_SIZE * size.bit_count():
            raise ValueError(f"a frontier of size {size} has {32 * size.bit_count()} bytes, these are {len(packed)}")
        frontier = cls()
        frontier.size = size
        position = len(packed)
        for level in range(size.bit_length()):
            if size >> level & 1:
                frontier._levels.append(packed[position - HASH_SIZE : position])
                position -= HASH_SIZE
            else:
                frontier._levels.append(None)
        return frontier

    def nodes(self) -> list[bytes]:
        """Return the complete subtrees from left (largest) to right (smallest)."""
        return [node for node in reversed(self._levels) if node is not None]

    def pack(self) -> bytes:
        """Return the subtrees joined, left to right."""
        return b"".join(self.nodes())

    def root(self) -> bytes:
        """Return the root of the tree so far."""
        *lefts, root = self.nodes() or [EMPTY_ROOT]
        return reduce(lambda right, left: node_hash(left, right), reversed(lefts), root)

    def copy(self) -> Frontier:
        """Return an independent copy."""
        twin = Frontier()
        twin.size = self.size
        twin._levels = list(self._levels)
        return twin

    def extend(self, leaves: bytes) -> None:
        """Append joined leaf hashes."""
        for level, node in subtrees(self.size, leaves):
            self.add(level, node)

    def add(self, level: int, node: bytes) -> None:
        """Append a complete subtree of ``2**level`` leaves to a tree whose size is a multiple of that."""
        self.size += 1 << level
        while level < len(self._levels) and (left := self._levels[level]) is not None:
            self._levels[level] = None
            node = node_hash(left, node)
            level += 1
        self._levels += [None] * (level + 1 - len(self._levels))
        self._levels[level] = node
