"""Steps 2, 3 and 6 to 8 for whole logs: chunks of stored rows joined in order, and epochs compared. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..ledger.batch import Head
from ..ledger.entry import Genesis, split_origin
from ..ledger.key_change import KeyChange
from ..ledger.keys import LogKeys
from ..ledger.log_verifier import DiscontinuityError, check_checkpoint, check_follows, check_genesis
from ..ledger.merkle import EMPTY_ROOT
from ..ledger.note import NoteError, OtherKeyError, open_sealed_checkpoint
from .chunks import CheckedChunk
from .since import LogHead
from .steps import Kind, Problem


def kind_of(error: BaseException) -> Kind:
    """Return ``key`` if an error means that the given key did not sign a note at all, else ``changed``."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OtherKeyError):
            return "key"
        cause = cause.__cause__
    return "changed"


class RootsBySize(Protocol):
    """Roots of one log: a dict, or a part of the scratch file."""

    def __setitem__(self, size: int, root: bytes, /) -> None: ...

    def get(self, size: int, /) -> bytes | None:
        """Return the root at a size; None if it is not kept."""
        ...


@dataclass(slots=True)
class VerifiedRoots:
    """The verified checkpoints of one log: how many, the last one, and the roots that are compared later.

    Attributes:
        first: the size from which on the log is verified (``--since``).
    """

    kept: RootsBySize = field(default_factory=dict[int, bytes])
    count: int = 0
    head: tuple[int, bytes] = (0, EMPTY_ROOT)
    first: int = 0

    def go_on(self, size: int, root: bytes) -> None:
        """Begin with a head that was verified earlier."""
        self.kept[size] = root
        self.head, self.first = (size, root), size

    def add(self, size: int, root: bytes) -> None:
        """Add the next verified checkpoint."""
        self.kept[size] = root
        self.head = size, root
        self.count += 1

    def at(self, size: int) -> bytes | None:
        """Return the root at a size; None if no verified checkpoint has it."""
        if size == self.head[0]:
            return self.head[1]
        return self.kept.get(size) or (EMPTY_ROOT if size == 0 else None)


@dataclass(slots=True)
class VerifiedLog:
    """One log: its verified checkpoints, and the first problem; nothing after it is checked.

    Attributes:
        key_changes: of a log of findings, the entries by which the log key changes. Those beyond the last verified
            checkpoint do not count.
        anchored: the head at the size that the last anchor covers, once it is verified.
    """

    genesis: Genesis
    roots: VerifiedRoots = field(default_factory=VerifiedRoots)
    problem: Problem | None = None
    key_changes: list[KeyChange] = field(default_factory=list)
    anchored: LogHead | None = None

    @property
    def head(self) -> tuple[int, bytes]:
        """Size and root of the last verified checkpoint."""
        return self.roots.head


@dataclass(slots=True)
class ChunkJoiner:
    """Joins the checked chunks of one log in order, from its genesis or an earlier head to its last checkpoint.

    Attributes:
        anchored_size: the size that the last anchor covers; 0 if none does.
        since: the head where an earlier verification ended.
    """

    log: VerifiedLog
    keys: LogKeys
    anchored_size: int = 0
    since: LogHead | None = None
    _head: Head = field(init=False)
    _noted: int = 0
    _times: dict[int, int] = field(default_factory=dict)
    """Sealing times since the last note, each with the first index that has it."""

    def __post_init__(self) -> None:
        self._head = Head.at_genesis(self.log.genesis)
        if self.since is not None:
            self._head = self.since.of_log(self.log.genesis)
            self._noted = self.since.size
            self.log.roots.go_on(self.since.size, self.since.root)
            if self.since.size == self.anchored_size:
                self.log.anchored = self.since

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
        try:
            # Steps 3 and 6, Order and Chain: the chunk begins where the one before ended.
            check_follows(self._head, chunk.first_index, chunk.previous_leaf, chunk.offsets[0])
            for segment in chunk.segments:
                for level, node in segment.subtrees:
                    self._head.frontier.add(level, node)
                self._head = replace(self._head, last_leaf=segment.last_leaf, next_offset=segment.next_offset)
                self._times = {**segment.times, **self._times}
                if segment.note and (problem := self._check_note(segment.note)) is not None:
                    return problem
        except DiscontinuityError as error:
            return Problem(self.log.genesis.origin, error.index, error.check, str(error))
        return None

    def _time_problem(self) -> Problem | None:
        """Check that the sealing time does not change inside a batch."""
        if len(self._times) == 1:
            return None
        message = "the time of sealing changes here, where no checkpoint ends a batch"
        return Problem(self.log.genesis.origin, sorted(self._times.values())[1], "sealed_at", message)

    def _check_note(self, note: str) -> Problem | None:
        """Check the note on the last row so far, which ends a batch."""
        computed = self._head.checkpoint()
        origin, size = computed.origin, computed.size
        if (changed := self._time_problem()) is not None:
            return changed
        # Step 7, Checkpoint: the log's key signed the root of our own tree at this size.
        try:
            signed, facts = open_sealed_checkpoint(note, self.keys.at(origin, size), self._noted, self._head.last_leaf)
        except NoteError as error:
            return Problem(origin, size - 1, "checkpoint", str(error), kind_of(error))
        check_checkpoint(signed, computed)
        # Step 8, Batch: the second signature covers the extent and the sealing time of the batch.
        if facts.sealed_at not in self._times:
            message = "the time of sealing of the batch that ends here is not the signed one"
            return Problem(origin, size - 1, "sealed_at", message)
        self.log.roots.add(size, computed.root)
        if size == self.anchored_size:
            self.log.anchored = LogHead.of(self._head)
        self._noted = size
        self._times = {}
        return None


def check_epochs(logs: Mapping[str, VerifiedLog], *, complete: bool) -> None:
    """Step 2, Genesis: compare each genesis with the last head of the epoch before; epoch 0 binds nothing.

    Only if ``complete``, every epoch must be here as a whole: a new one begins in Kafka because the one before was
    lost, or its end.
    """
    for origin, log in logs.items():
        name, epoch = split_origin(origin)
        before = logs.get(f"{name}/{epoch - 1}")
        try:
            if epoch and before is None and complete:
                raise DiscontinuityError("the epoch before it is not here", "genesis", 0)
            known = before.head if before is not None and before.problem is None else None
            if known is not None and not complete and log.genesis.previous_size > known[0]:
                known = None
            check_genesis(log.genesis, known)
        except DiscontinuityError as error:
            log.problem = log.problem or Problem(origin, error.index, error.check, str(error))
