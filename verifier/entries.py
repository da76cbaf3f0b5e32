"""Steps 3 to 6 for stored rows: order, payloads, leaves and chain of one chunk of a log. Pure.

Chunks are checked in any process and in any order. :mod:`.logs` then joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ledger.entry import EntryError, check_leaves, check_payloads, first_difference
from ..ledger.merkle import Frontier
from ..ledger.packing import unpack_hashes
from .steps import Problem


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one log ordered by index. Hashes are joined, 32 bytes each. Times: append ms, sealed µs since 1970."""

    origin: str
    first_index: int
    indices: Sequence[int]
    flags: Sequence[int]
    offsets: Sequence[int]
    append_times: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[bytes]
    payload_hashes: bytes
    previous_leaf_hashes: bytes
    leaf_hashes: bytes
    sealed_at: Sequence[int]
    notes: Sequence[tuple[int, str]]
    """(position in the chunk, note) of the rows that have a note."""
    erased: frozenset[int] = frozenset()
    """Positions of erased payloads; the caller checks that the erasures are on record."""


Times = tuple[tuple[int, int], ...]
"""Sealing times of a run of rows: (index, time) of the first row and of every row where the time changes."""


@dataclass(frozen=True, slots=True)
class NotedRow:
    """A row with a note, which ends a batch.

    Attributes:
        count: entries of the chunk up to and including this row.
        frontier: packed tree over them.
        leaf: leaf hash of this row.
        times: sealing times of the rows since the previous note.
    """

    count: int
    note: str
    frontier: bytes
    leaf: bytes
    times: Times


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """The facts about a sound chunk that the chunks around it must fit.

    Attributes:
        offsets: first and last offset.
        frontier: packed tree over the chunk's entries alone.
        notes: the rows with a note, in order.
        tail_times: sealing times of the rows after the last note.
    """

    origin: str
    first_index: int
    count: int
    first_previous: bytes
    last_leaf: bytes
    offsets: tuple[int, int]
    frontier: bytes
    notes: tuple[NotedRow, ...]
    tail_times: Times
    problem: Problem | None = None


def failed_chunk(origin: str, index: int, check: str, message: str) -> CheckedChunk:
    """Return a chunk of which nothing is known but its first problem."""
    problem = Problem(origin, index, check, message)
    return CheckedChunk(origin, index, 0, b"", b"", (0, 0), b"", (), (), problem)


def check_chunk(chunk: Chunk, expected: int) -> CheckedChunk:
    """Check the rows of a chunk up to the first problem.

    Args:
        expected: the number of rows that the chunk must have, at least 1. The chunk must begin at a multiple of a power
            of two that is not smaller, so that the tree over it is a subtree of the log's.
    """

    def failed(position: int, check: str, message: str) -> CheckedChunk:
        return failed_chunk(chunk.origin, chunk.first_index + position, check, message)

    # Step 3, Order: every index is there once; offsets increase (checked with the leaves).
    gap = _index_problem(chunk, expected)
    if gap is not None:
        return failed(gap[0], "index", gap[1])
    first_previous = chunk.previous_leaf_hashes[:32]
    payloads = unpack_hashes(chunk.payload_hashes)
    try:
        # Step 4, Payload: the payload hash is that of key, value and headers.
        check_payloads(chunk.keys, chunk.values, chunk.headers, payloads, chunk.erased)
        # Step 5, Leaf: the leaf hash is that of the entry.
        leaves = check_leaves(
            first_previous, chunk.flags, chunk.offsets, chunk.append_times, payloads, stored=chunk.leaf_hashes
        )
    except EntryError as error:
        return failed(error.position, error.check, str(error))
    # Step 6, Chain: the previous leaf hash is the leaf hash of the entry before.
    previous = first_previous + chunk.leaf_hashes[:-32]
    if previous != chunk.previous_leaf_hashes:
        position = first_difference(previous, chunk.previous_leaf_hashes)
        return failed(position, "chain", "the previous leaf hash is not the leaf hash of the entry before")
    frontier = Frontier()
    notes = []
    done = 0
    for at, note in chunk.notes:
        frontier.extend(leaves[done : at + 1])
        notes.append(NotedRow(at + 1, note, frontier.pack(), leaves[at], _times(chunk, done, at + 1)))
        done = at + 1
    frontier.extend(leaves[done:])
    return CheckedChunk(
        chunk.origin,
        chunk.first_index,
        expected,
        first_previous,
        leaves[-1],
        (chunk.offsets[0], chunk.offsets[-1]),
        frontier.pack(),
        tuple(notes),
        _times(chunk, done, expected),
    )


def _times(chunk: Chunk, start: int, end: int) -> Times:
    times = chunk.sealed_at[start:end]
    if len(set(times)) == 1:
        return ((chunk.first_index + start, times[0]),)
    return tuple(
        (chunk.first_index + start + at, time) for at, time in enumerate(times) if not at or time != times[at - 1]
    )


def _index_problem(chunk: Chunk, expected: int) -> tuple[int, str] | None:
    """Return the position of the first wrong index, and the problem."""
    if list(chunk.indices) == list(range(chunk.first_index, chunk.first_index + expected)):
        return None
    for position, index in enumerate(chunk.indices):
        wanted = chunk.first_index + position
        if position and index == chunk.indices[position - 1]:
            return position - 1, f"entry {index} is stored more than once"
        if index < wanted:  # its duplicate is the last row of the chunk before
            return index - chunk.first_index, f"entry {index} is stored more than once"
        if index != wanted:
            return position, f"entry {wanted} is missing; the next one stored is {index}"
    position = len(chunk.indices)
    return position, f"entry {chunk.first_index + position} and those after it are missing"
