"""The verifier: whether stored entries are the ones that were signed. Pure; it is given rows and hashes them itself.

Rows come in chunks of one origin. A chunk is checked on its own, in whatever process (`check_chunk`); an
`OriginVerifier` then joins the chunks in order: chain, tree, every signature. Steps and bytes: docs/ledger.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..ledger.anchor import Anchor, AnchorError, check_anchor
from ..ledger.entry import Genesis, chain, leaf_hash, payload_hashes
from ..ledger.merkle import EMPTY_ROOT, Frontier
from ..ledger.note import Checkpoint, NoteError, open_sealed_checkpoint


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was signed.

    Attributes:
        origin: the log.
        index: the first entry concerned; None where it is about the log as a whole.
        check: short stable word: ``index``, ``payload``, ``leaf``, ``chain``, ``columns``, ``checkpoint`` …
        message: what is wrong, in a sentence.
    """

    origin: str
    index: int | None
    check: str
    message: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one origin in order of index. Hashes are packed, 32 bytes each; times are ms and micros since 1970."""

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
    """(position in the chunk, note) of the rows that have one."""
    erased: frozenset[int] = frozenset()
    """Positions whose payload was erased; whether that is on record is the caller's to check."""


Times = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class NotedRow:
    """A row with a note, which ends a batch.

    Attributes:
        count: entries of the chunk up to and with it.
        frontier: packed tree up to there.
        leaf: its leaf hash.
        times: times of sealing of the rows since the note before.
    """

    count: int
    note: str
    frontier: bytes
    leaf: bytes
    times: Times


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """What is left of a chunk once its rows are found sound: what the chunks around it must fit.

    Attributes:
        frontier: packed tree after the chunk; of its own entries alone, or of the whole log where ``whole`` is set.
        notes: the rows with a note, in order.
        tail_times: times of sealing of the rows after the last note. As all others: (index, time) where it changes.
    """

    origin: str
    first_index: int
    count: int
    first_previous: bytes
    last_leaf: bytes
    frontier: bytes
    notes: tuple[NotedRow, ...]
    tail_times: Times
    whole: bool = False
    problem: Problem | None = None


def check_chunk(chunk: Chunk, expected: int, base: Frontier | None = None) -> CheckedChunk:
    """Check the rows of a chunk: dense index, payload against payload hash, entry against leaf, leaf against leaf.

    Args:
        expected: how many rows the chunk must have.
        base: the tree before the chunk, where it is known; else the chunk must begin at a multiple of a power of two
            that it does not exceed, so that the tree over it alone is a part of the whole.
    """

    def failed(position: int, check: str, message: str) -> CheckedChunk:
        index = chunk.first_index + position
        problem = Problem(chunk.origin, index, check, message)
        return failed_chunk(problem)

    hole = _index_problem(chunk, expected)
    if hole is not None:
        return failed(hole[0], "index", hole[1])
    stored_payloads = unpack(chunk.payload_hashes)
    payloads = payload_hashes(chunk.keys, chunk.values, chunk.headers)
    if payloads != stored_payloads:
        for position, (computed, stored) in enumerate(zip(payloads, stored_payloads, strict=True)):
            if computed != stored and position not in chunk.erased:
                return failed(position, "payload", "key, value or headers are not those that were sealed")
    first_previous = chunk.previous_leaf_hashes[:32]
    try:
        leaves = chain(first_previous, chunk.flags, chunk.offsets, chunk.append_times, stored_payloads)
    except (OverflowError, ValueError) as error:  # pragma: no cover - columns are typed by the store
        return failed(0, "leaf", f"an entry has a number out of range: {error}")
    packed = b"".join(leaves)
    if packed != chunk.leaf_hashes:
        position = _first_difference(packed, chunk.leaf_hashes)
        return failed(position, "leaf", "offset, time, flags, payload hash or leaf hash are not those that were sealed")
    if first_previous + packed[:-32] != chunk.previous_leaf_hashes:
        position = _first_difference(first_previous + packed[:-32], chunk.previous_leaf_hashes)
        return failed(position, "chain", "the previous leaf hash is not the leaf hash of the entry before")
    frontier = base.copy() if base is not None else Frontier()
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
        leaves[-1] if leaves else first_previous,
        frontier.pack(),
        tuple(notes),
        _times(chunk, done, expected),
        whole=base is not None,
    )


def failed_chunk(problem: Problem) -> CheckedChunk:
    """Return what is left of a chunk with a problem in it."""
    return CheckedChunk(problem.origin, problem.index or 0, 0, b"", b"", b"", (), (), problem=problem)


def unpack(packed: bytes) -> list[bytes]:
    """Return 32-byte hashes as a list."""
    return [packed[at : at + 32] for at in range(0, len(packed), 32)]


def _times(chunk: Chunk, start: int, end: int) -> Times:
    times = chunk.sealed_at[start:end]
    if len(set(times)) == 1:
        return ((chunk.first_index + start, times[0]),)
    return tuple(
        (chunk.first_index + start + at, time) for at, time in enumerate(times) if not at or time != times[at - 1]
    )


def _index_problem(chunk: Chunk, expected: int) -> tuple[int, str] | None:
    """Return where the indices are not dense, and in what way."""
    if list(chunk.indices) == list(range(chunk.first_index, chunk.first_index + expected)):
        return None
    for position, index in enumerate(chunk.indices):
        wanted = chunk.first_index + position
        if position and index == chunk.indices[position - 1]:
            return position - 1, f"entry {index} is there more than once"
        if index < wanted:  # its twin is the last row of the chunk before
            return index - chunk.first_index, f"entry {index} is there more than once"
        if index != wanted:
            return position, f"entry {wanted} is missing; the next one stored is {index}"
    position = len(chunk.indices)
    return position, f"entry {chunk.first_index + position} and what follows are missing"


def _first_difference(computed: bytes, stored: bytes) -> int:
    for at in range(0, len(computed), 32):
        if computed[at : at + 32] != stored[at : at + 32]:
            return at // 32
    return len(computed) // 32


@dataclass(slots=True)
class OriginVerifier:
    """Joins the chunks of one log in order, from its genesis to its last checkpoint."""

    genesis: Genesis
    public_key: bytes
    frontier: Frontier = field(default_factory=Frontier)
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    """Root of the tree at every checkpoint, by size: what anchors are compared with."""
    problem: Problem | None = None
    checkpoints: int = 0
    _last_leaf: bytes = b""
    _noted: int = 0
    _open_times: Times = ()

    @property
    def last_leaf(self) -> bytes:
        """What the next entry must name: the leaf hash of the last one, or the genesis hash."""
        return self._last_leaf or self.genesis.hash()

    def add(self, chunk: CheckedChunk) -> None:
        """Take the next chunk; after the first problem nothing more is looked at."""
        if self.problem is None:
            self.problem = chunk.problem or self._join(chunk)

    def _join(self, chunk: CheckedChunk) -> Problem | None:
        origin = self.genesis.origin
        if chunk.first_index != self.frontier.size:
            message = f"entries from {chunk.first_index} on stand where entry {self.frontier.size} comes next"
            return Problem(origin, min(chunk.first_index, self.frontier.size), "index", message)
        if chunk.first_previous != self.last_leaf:
            what = "the leaf hash of the entry before" if self._last_leaf else "the genesis hash of its log"
            return Problem(origin, chunk.first_index, "chain", f"the previous leaf hash is not {what}")
        for row in chunk.notes:
            tree = self._tree(row.count, row.frontier, chunk.whole)
            problem = self._check_note(row, tree, self._open_times + row.times)
            if problem is not None:
                return problem
            self._open_times = ()
        self.frontier = self._tree(chunk.count, chunk.frontier, chunk.whole)
        self._last_leaf = chunk.last_leaf
        self._open_times += chunk.tail_times
        return None

    def _tree(self, count: int, packed: bytes, whole: bool) -> Frontier:
        if whole:
            return Frontier.unpack(self.frontier.size + count, packed)
        tree = self.frontier.copy()
        tree.join(Frontier.unpack(count, packed))
        return tree

    def _one_time(self, times: Times) -> Problem | None:
        """Check that the time of sealing does not change, which it does only where a checkpoint ends a batch."""
        for index, time in times[1:]:
            if time != times[0][1]:
                message = "the time of sealing changes here, where no checkpoint ends a batch"
                return Problem(self.genesis.origin, index, "sealed_at", message)
        return None

    def _check_note(self, row: NotedRow, tree: Frontier, times: Times) -> Problem | None:
        origin, index = self.genesis.origin, tree.size - 1
        if (changed := self._one_time(times)) is not None:
            return changed
        try:
            stated, signed = open_sealed_checkpoint(row.note, self.public_key, self._noted, row.leaf)
        except NoteError as error:
            return Problem(origin, index, "checkpoint", str(error))
        root = tree.root()
        if stated != Checkpoint(origin, tree.size, root):
            return Problem(
                origin, index, "checkpoint", "the signed checkpoint is not the head of the entries up to here"
            )
        if times[0][1] != signed.sealed_at:
            return Problem(
                origin,
                index,
                "sealed_at",
                "the time of sealing of the batch that ends here is not the one that is signed",
            )
        self.roots[tree.size] = root
        self._noted = tree.size
        self.checkpoints += 1
        return None

    def finish(self) -> None:
        """Check that the log ends with a checkpoint."""
        if self.problem is None and self._open_times:
            self.problem = self._one_time(self._open_times)
        if self.problem is None and self._open_times:
            message = f"no checkpoint covers the entries from {self._noted} on: the log ends inside a batch"
            self.problem = Problem(self.genesis.origin, self._noted, "checkpoint", message)


def verify_anchors(
    anchors: Iterable[Anchor],
    public_key: bytes,
    roots: Mapping[str, Mapping[int, bytes]],
    skip: frozenset[str] = frozenset(),
    origin: str | None = None,
) -> tuple[int, Problem | None]:
    """Check the anchor log from its beginning, and that every checkpoint it covers is one of the logs verified.

    Args:
        roots: of each log, the root at every checkpoint by size.
        skip: logs that are not sound or were not read, about which anchors say nothing new.
        origin: name of the anchor log; None for that of the first anchor.

    Returns:
        How many anchors are sound, and the first problem.
    """
    frontier = Frontier()
    count = 0
    for anchor in anchors:
        origin = origin or anchor.origin
        if anchor.origin != origin:
            return count, Problem(origin, count, "anchor", f"an anchor of {anchor.origin} stands among them")
        if anchor.index != count:
            double = anchor.index < count
            text = f"anchor {anchor.index} is there more than once" if double else f"anchor {count} is missing"
            return count, Problem(origin, min(anchor.index, count), "anchor_index", text)
        try:
            after = check_anchor(anchor, public_key)
        except AnchorError as error:
            return count, Problem(anchor.origin, count, "anchor", str(error))
        frontier.extend([leaf_hash(anchor.entry)])
        if after.root() != frontier.root():
            return count, Problem(anchor.origin, count, "anchor", "the anchor does not follow the ones before it")
        problem = check_covered(anchor, roots, skip)
        if problem is not None:
            return count, problem
        count += 1
    return count, None


def check_covered(
    anchor: Anchor, roots: Mapping[str, Mapping[int, bytes]], skip: frozenset[str] = frozenset()
) -> Problem | None:
    """Compare the checkpoints that an anchor covers with the logs as verified; None where all agree."""
    for checkpoint in anchor.checkpoints():
        if checkpoint.origin in skip:
            continue
        known = roots.get(checkpoint.origin)
        if known is None and checkpoint.size == 0:
            continue
        if known is None:
            return Problem(
                checkpoint.origin, 0, "truncated", f"anchor {anchor.index} covers this log, nothing of it is here"
            )
        size = max(known, default=0)
        if checkpoint.size > size:
            message = f"anchor {anchor.index} covers {checkpoint.size} entries, only {size} are here"
            return Problem(checkpoint.origin, size, "truncated", message)
        root = known.get(checkpoint.size)
        if root is None:
            message = f"anchor {anchor.index} covers a checkpoint of {checkpoint.size} entries that is not here"
            return Problem(checkpoint.origin, checkpoint.size - 1, "checkpoint", message)
        if root != checkpoint.root:
            message = f"anchor {anchor.index} covers {checkpoint.size} entries with another root: history was rewritten"
            return Problem(checkpoint.origin, checkpoint.size - 1, "anchor", message)
    return None
