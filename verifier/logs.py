"""Steps 2, 3 and 6 to 8 for whole logs: chunks of stored rows joined in order, and epochs compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ledger.entry import Genesis, split_origin
from ..ledger.keys import LogKeys
from ..ledger.merkle import EMPTY_ROOT, Frontier
from ..ledger.note import Checkpoint, NoteError, open_sealed_checkpoint
from .entries import CheckedChunk, NotedRow, Times
from .steps import Problem


@dataclass(slots=True)
class VerifiedLog:
    """One log, as far as it is verified.

    Attributes:
        roots: the root at every verified checkpoint, by size.
        checkpoints: number of verified checkpoints.
        problem: the first problem; nothing after it is checked.
    """

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
    _frontier: Frontier = field(default_factory=Frontier)
    _last_leaf: bytes = b""
    _last_offset: int = -1
    _noted: int = 0
    _open_times: Times = ()

    def add(self, chunk: CheckedChunk) -> None:
        """Take the next chunk. After the first problem, all others are ignored."""
        if self.log.problem is None:
            self.log.problem = chunk.problem or self._join(chunk)

    def finish(self) -> None:
        """Check that the log ends with a checkpoint."""
        if self.log.problem is None and self._open_times:
            message = f"no checkpoint covers the entries from {self._noted} on: the log ends inside a batch"
            missing = Problem(self.log.genesis.origin, self._noted, "checkpoint", message)
            self.log.problem = self._one_time(self._open_times) or missing

    def _join(self, chunk: CheckedChunk) -> Problem | None:
        origin, size = self.log.genesis.origin, self._frontier.size
        # Step 3, Order: the chunk begins where the one before ended.
        if chunk.first_index != size:
            message = f"entries from {chunk.first_index} on are stored where entry {size} comes next"
            return Problem(origin, min(chunk.first_index, size), "index", message)
        # Step 6, Chain: the first entry contains the leaf hash before it; entry 0 contains the genesis hash.
        if chunk.first_previous != (self._last_leaf or self.log.genesis.hash()):
            what = "the leaf hash of the entry before" if self._last_leaf else "the genesis hash of its log"
            return Problem(origin, size, "chain", f"the previous leaf hash is not {what}")
        # Step 3, Order: offsets increase.
        if chunk.offsets[0] <= max(self._last_offset, self.log.genesis.first_offset - 1):
            return Problem(origin, size, "offset", "the offset is not greater than the one before")
        for row in chunk.notes:
            problem = self._check_note(row, self._tree(row.count, row.frontier), self._open_times + row.times)
            if problem is not None:
                return problem
            self._open_times = ()
        self._frontier = self._tree(chunk.count, chunk.frontier)
        self._last_leaf, self._last_offset = chunk.last_leaf, chunk.offsets[1]
        self._open_times += chunk.tail_times
        return None

    def _tree(self, count: int, packed: bytes) -> Frontier:
        tree = self._frontier.copy()
        tree.join(Frontier.unpack(count, packed))
        return tree

    def _one_time(self, times: Times) -> Problem | None:
        """Check that the sealing time does not change inside a batch."""
        changed = next((index for index, time in times if time != times[0][1]), None)
        if changed is None:
            return None
        message = "the time of sealing changes here, where no checkpoint ends a batch"
        return Problem(self.log.genesis.origin, changed, "sealed_at", message)

    def _check_note(self, row: NotedRow, tree: Frontier, times: Times) -> Problem | None:
        origin, index = self.log.genesis.origin, tree.size - 1
        if (changed := self._one_time(times)) is not None:
            return changed
        # Step 7, Checkpoint: the log's key signed the root of our own tree at this size.
        root = tree.root()
        try:
            key = self.keys.at(origin, tree.size)
            stated, signed = open_sealed_checkpoint(row.note, key, self._noted, row.leaf)
        except NoteError as error:
            return Problem(origin, index, "checkpoint", str(error))
        if stated != Checkpoint(origin, tree.size, root):
            message = "the signed checkpoint is not the head of the entries up to here"
            return Problem(origin, index, "checkpoint", message)
        # Step 8, Batch: the second signature covers the extent and the sealing time of the batch.
        if times[0][1] != signed.sealed_at:
            message = "the time of sealing of the batch that ends here is not the signed one"
            return Problem(origin, index, "sealed_at", message)
        self.log.roots[tree.size] = root
        self._noted = tree.size
        self.log.checkpoints += 1
        return None


def check_epochs(logs: Mapping[str, VerifiedLog], *, complete: bool) -> None:
    """Step 2, Genesis: compare each genesis with the last head of the epoch before; epoch 0 binds nothing.

    Args:
        complete: every epoch must be here. ClickHouse keeps them all; Kafka may have lost one, and a new one began.
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
