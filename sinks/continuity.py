"""Whether a sealed batch is the next one to store: ClickHouse never contains a fork or a gap. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..kafka.offsets import Partition
from ..kafka.sealed_log import SealedBatchVerifier
from ..ledger.batch import SealedBatch, leaf_at
from ..ledger.entry import epoch_of
from ..ledger.note import Checkpoint
from .evidence import Stored, StoringStoppedError
from .insert_attempt import InsertAttempt


@dataclass(slots=True)
class StoredPartition:
    """An assigned sealed partition: its verifier, and how much of its log is stored.

    Attributes:
        stored: the entries that ClickHouse has.
        read: the entries that ClickHouse has, or will have once the waiting groups are inserted.
        attempted: an insert of an earlier process whose result is unknown: the next one repeats it.
    """

    topic: str
    partition: int
    verifier: SealedBatchVerifier
    stored: Stored | None
    read: Stored | None
    attempted: InsertAttempt | None

    @property
    def where(self) -> Partition:
        """The sealed topic and the partition."""
        return self.topic, self.partition


def follows(stored: Stored, batch: SealedBatch) -> bool:
    """Return whether a batch comes next; False if it is stored already, or belongs to an earlier epoch.

    Raises:
        StoringStoppedError: it contradicts the stored entries, or leaves a gap.
    """
    if batch.origin != stored.origin:
        return False
    if batch.size <= stored.size:
        check_stored_leaf(stored, batch)
        return False
    if batch.first_index != stored.size:
        raise StoringStoppedError(
            f"{batch.origin} has {stored.size} stored entries; the next sealed batch begins at index "
            f"{batch.first_index}"
        )
    if batch.previous_leaf_hash != stored.last_leaf:
        raise StoringStoppedError(
            f"{batch.origin} index {batch.first_index}: the sealed entry does not contain the leaf hash of the stored "
            "entry before it"
        )
    return True


def contains(stored: Stored | None, batch: SealedBatch) -> bool:
    """Whether the store contains a batch that the group has passed, and so everything before it."""
    epoch = epoch_of(batch.origin)
    if batch.size == 0:  # the first batch of a new log, or of an epoch that a person opened
        behind = stored is None or (epoch_of(stored.origin) < epoch and stored.size < batch.genesis.previous_size)
        return epoch == 0 or not behind
    if stored is None or epoch_of(stored.origin) < epoch:
        return False
    if stored.origin != batch.origin:
        return True
    check_stored_leaf(stored, batch)
    return stored.size >= batch.size


def check_stored_leaf(stored: Stored, batch: SealedBatch) -> None:
    """Compare the last stored leaf with the sealed one, if the batch contains it."""
    index = stored.size - 1
    if batch.first_index <= index < batch.size and leaf_at(batch, index) != stored.last_leaf:
        raise StoringStoppedError(f"{batch.origin} index {index}: the stored leaf differs from the sealed one")


def is_stored_up_to(stored: Stored | None, head: Checkpoint) -> bool:
    """Whether the store has the entries up to a head, or already a later epoch of its log."""
    if stored is None:
        return head.size == 0
    return (epoch_of(stored.origin), stored.size) >= (epoch_of(head.origin), head.size)


def check_begins(stored: Stored | None, batch: SealedBatch) -> None:
    """Check the first batch of a log, or of an epoch after the stored one.

    Raises:
        StoringStoppedError: the batches before it are missing, or a new epoch does not bind everything that is stored.
    """
    if batch.first_index != 0:
        raise StoringStoppedError(
            f"the sealed partition begins at index {batch.first_index} of {batch.origin}, and the store has no earlier "
            "entry: batches were deleted"
        )
    if stored is not None and batch.genesis.previous_size < stored.size:
        bound = batch.genesis.previous_size
        raise StoringStoppedError(
            f"{batch.origin} binds {bound} entries of the epoch before, and the store has {stored.size}"
        )
