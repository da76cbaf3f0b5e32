"""Steps 2, 3 and 6 to 8 for whole logs: chunks of stored rows joined in order, and epochs compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ledger.entry import Genesis, split_origin
from ..ledger.keys import LogKeys
from ..ledger.merkle import EMPTY_ROOT, Frontier
from ..ledger.note import Checkpoint, NoteError, open_sealed_checkpoint
from .chunks import CheckedChunk
from .steps import Problem


@dataclass(slots=True)
class VerifiedLog:
    """One log: its roots by size of verified checkpoint, and the first problem; nothing after it is checked."""

    genesis: Genesis
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    checkpoints: int = 0
    problem: Problem | None = None

    @property
    def head(self) -> tuple[int, bytes]:
        """Size and root of the last verified checkpoint."""
        size = max(self.roots)
        return size, self.roots[size]


@dataclass(slots=True)
class ChunkJoiner:
    """Joins the checked chunks of one log in order, from its genesis to its last checkpoint."""

    log: VerifiedLog
    keys: LogKeys
    _tree: Frontier = field(default_factory=Frontier)
    _last_leaf: bytes = b""
    _last_offset: int = -1
    _noted: int = 0
    _times: dict[int, int] = field(default_factory=dict)
    """Sealing times since the last note, each with the first index that has it."""

    def add(self, chunk: CheckedChunk) -> None:
        """Take the next chunk. After the first problem, all others are ignored."""
        if self.log.problem is None:
            self.log.problem = chunk.problem or self._join(chunk)

    def finish(self) -> None:
        """Check that the log ends with a checkpoint."""
        if self.log.problem is None and self._times:
            message = f"no checkpoint covers the entries from {self._noted} on: the log ends inside a batch"
            missing = Problem(self.log.genesis.origin, self._noted, "checkpoint", message)
            self.log.problem = self._time_problem() or missing

    def _join(self, chunk: CheckedChunk) -> Problem | None:
        origin, size = self.log.genesis.origin, self._tree.size
        # Step 3, Order: the chunk begins where the one before ended.
        if chunk.first_index != size:
            message = f"entries from {chunk.first_index} on are stored where entry {size} comes next"
            return Problem(origin, min(chunk.first_index, size), "index", message)
        # Step 6, Chain: the first entry contains the leaf hash before it; entry 0 contains the genesis hash.
        if chunk.previous_leaf != (self._last_leaf or self.log.genesis.hash()):
            what = "the leaf hash of the entry before" if self._last_leaf else "the genesis hash of its log"
            return Problem(origin, size, "chain", f"the previous leaf hash is not {what}")
        # Step 3, Order: offsets increase.
        if chunk.offsets[0] <= max(self._last_offset, self.log.genesis.first_offset - 1):
            return Problem(origin, size, "offset", "the offset is not greater than the one before")
        self._last_offset = chunk.offsets[1]
        for segment in chunk.segments:
            for level, node in segment.subtrees:
                self._tree.add(level, node)
            self._last_leaf = segment.last_leaf
            self._times = {**segment.times, **self._times}
            if segment.note and (problem := self._check_note(segment.note)) is not None:
                return problem
        return None

    def _time_problem(self) -> Problem | None:
        """Check that the sealing time does not change inside a batch."""
        if len(self._times) == 1:
            return None
        message = "the time of sealing changes here, where no checkpoint ends a batch"
        return Problem(self.log.genesis.origin, sorted(self._times.values())[1], "sealed_at", message)

    def _check_note(self, note: str) -> Problem | None:
        """Check the note on the last row so far, which ends a batch."""
        origin, size, root = self.log.genesis.origin, self._tree.size, self._tree.root()
        if (changed := self._time_problem()) is not None:
            return changed
        # Step 7, Checkpoint: the log's key signed the root of our own tree at this size.
        try:
            key = self.keys.at(origin, size)
            stated, signed = open_sealed_checkpoint(note, key, self._noted, self._last_leaf)
        except NoteError as error:
            return Problem(origin, size - 1, "checkpoint", str(error))
        if stated != Checkpoint(origin, size, root):
            message = "the signed checkpoint is not the head of the entries up to here"
            return Problem(origin, size - 1, "checkpoint", message)
        # Step 8, Batch: the second signature covers the extent and the sealing time of the batch.
        if signed.sealed_at not in self._times:
            message = "the time of sealing of the batch that ends here is not the signed one"
            return Problem(origin, size - 1, "sealed_at", message)
        self.log.roots[size] = root
        self.log.checkpoints += 1
        self._noted = size
        self._times = {}
        return None


def check_epochs(logs: Mapping[str, VerifiedLog], *, complete: bool) -> None:
    """Step 2, Genesis: compare each genesis with the last head of the epoch before; epoch 0 binds nothing.

    Only if ``complete``, every epoch must be here: a new one begins in Kafka because the one before was lost.
    """
    for origin, log in logs.items():
        name, epoch = split_origin(origin)
        bound = (log.genesis.previous_size, log.genesis.previous_root)
        before = logs.get(f"{name}/{epoch - 1}")
        message = ""
        if epoch == 0:
            message = "epoch 0 names an epoch before it" if bound != (0, bytes(32)) else ""
        elif before is None:
            message = "the epoch before it is not here" if complete else ""
        elif before.problem is None and bound != before.head:
            message = "its genesis does not bind the last head of the epoch before"
        if message and log.problem is None:
            log.problem = Problem(origin, 0, "genesis", message)
