"""How a log continues: the checks of genesis, order, chain and checkpoint, and the sealed batches of one partition.

Pure: keys, the last verified head and a batch go in; the new head or an error comes out. Step numbers are those of
docs/ledger.md, "How to verify".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .batch import BatchError, Head, SealedBatch
from .entry import EntryError, Genesis, check_leaves, check_payloads, epoch_of, split_origin
from .keys import LogKeys
from .note import Checkpoint, OtherKeyError
from .packing import I64, U64, unpack, unpack_hashes

OLDER_LIST = (
    ". If the key of the logs was replaced, the file of public keys here may be older: copy log.pub again "
    "(public_key_file), and restart"
)
"""What may explain that another key signed a batch."""


class InvalidNoteError(BatchError):
    """The log did not sign this record as it is. Skip it and publish a critical finding.

    Anyone who can write to the topic can cause this, so it must not stop the partition.
    """


class DiscontinuityError(BatchError):
    """The log signed this batch, but it does not continue the verified head. Stop this partition."""


def check_contents(batch: SealedBatch) -> None:
    """Recompute all payload hashes and leaves: required of readers that act on the payloads.

    Raises:
        EntryError, BatchError: an entry differs, or the lengths do not add up.
    """
    records = batch.records()
    check_payloads(records.keys, records.values, records.headers, unpack_hashes(batch.payload_hashes))
    check_hashes(batch)


def check_hashes(batch: SealedBatch) -> None:
    """Recompute all leaves from the stated payload hashes: the minimum, for readers that only store the batch.

    Raises:
        EntryError: an entry differs.
    """
    columns = (list(batch.flags), unpack(U64, batch.offsets), unpack(I64, batch.append_times))
    check_leaves(batch.previous_leaf_hash, *columns, unpack_hashes(batch.payload_hashes), stored=batch.leaf_hashes)


def check_genesis(genesis: Genesis, before: tuple[int, bytes] | None) -> None:
    """Check that a genesis binds the last head of the epoch before, its size and root, if that is known (step 2).

    Raises:
        DiscontinuityError: it does not.
    """
    bound = (genesis.previous_size, genesis.previous_root)
    if epoch_of(genesis.origin) == 0:
        if bound != (0, bytes(32)):
            raise DiscontinuityError("epoch 0 names an epoch before it", "genesis", 0)
    elif before is not None and bound != before:
        raise DiscontinuityError("its genesis does not bind the last head of the epoch before", "genesis", 0)


def check_follows(before: Head, first_index: int, previous_leaf: bytes, first_offset: int) -> None:
    """Check that entries continue a log after a head (steps 3 and 6).

    Args:
        previous_leaf: stated by the first entry.
        first_offset: of the first entry, or from where the next one may have its offset.

    Raises:
        DiscontinuityError: they do not.
    """
    # Step 3, Order: no index is missing or duplicated.
    if first_index != before.size:
        message = f"entries from {first_index} on are where entry {before.size} comes next"
        raise DiscontinuityError(message, "index", min(first_index, before.size))
    # Step 6, Chain: the first entry contains the leaf hash before it; entry 0 contains the genesis hash.
    if previous_leaf != before.last_leaf:
        name = "the leaf hash of the entry before" if before.size else "the genesis hash of its log"
        raise DiscontinuityError(f"the previous leaf hash is not {name}", "chain", first_index)
    # Step 3, Order: offsets increase.
    if first_offset < before.next_offset:
        raise DiscontinuityError("the offset is not greater than the one before", "offset", first_index)


def check_checkpoint(signed: Checkpoint, computed: Checkpoint) -> None:
    """Check that the signed checkpoint is that of the tree computed from the leaves (step 7).

    Raises:
        DiscontinuityError: it is not.
    """
    if signed != computed:
        message = "the signed checkpoint is not the head of the entries up to here"
        raise DiscontinuityError(message, "checkpoint", max(0, computed.size - 1))


@dataclass(slots=True)
class LogVerifier:
    """Verifies one partition, epoch after epoch.

    Attributes:
        log: the origin without its epoch: ``<deployment>/<topic>/<partition>``.
        keys: the log's public keys, from a source other than the topic.
        head: the last verified head. None at the beginning of a partition: an epoch must then begin at index 0.
        check: :func:`check_contents` or :func:`check_hashes`.
        assumed: the head is that of a signed batch whose predecessors were not verified. The genesis of a new epoch
            need not bind it: the batch may be the forged one because of which a person opened the epoch.
    """

    log: str
    keys: LogKeys
    head: Head | None = None
    check: Callable[[SealedBatch], None] = check_contents
    assumed: bool = False

    def accept(self, batch: SealedBatch) -> Head:
        """Verify the next batch and return the new head.

        Raises:
            InvalidNoteError, DiscontinuityError: the head is unchanged.
        """
        after = self._signed_head(batch)
        self._check_continuity(batch, after)
        self.head, self.assumed = after, False
        return after

    def start_at(self, batch: SealedBatch) -> Head:
        """Take a batch in the middle of the log as the first one: as :meth:`accept`, without the head before it."""
        self.head, self.assumed = self._signed_head(batch), True
        return self.head

    def _signed_head(self, batch: SealedBatch) -> Head:
        if split_origin(batch.origin)[0] != self.log:
            raise InvalidNoteError(f"batch of {batch.origin} in the partition of {self.log}", "origin")
        try:
            # Steps 7 and 8, Checkpoint and Batch: the log signed this head, and the extent and time of this batch.
            head = batch.verified_head(self.keys.at(batch.origin, batch.size))
            # Steps 4 to 6, Payload, Leaf and Chain: the signed last leaf covers these entries and no others.
            self.check(batch)
        except EntryError as error:
            index = batch.first_index + error.position
            raise InvalidNoteError(f"{batch.origin} index {index}: {error}", error.check, index) from error
        except BatchError as error:
            other_key = isinstance(error.__cause__, OtherKeyError)
            raise InvalidNoteError(f"{error}{OLDER_LIST if other_key else ''}", error.check) from error
        if batch.first_index == 0 and batch.previous_leaf_hash != batch.genesis.hash():
            message = f"{batch.origin}: the previous leaf hash of entry 0 is not the genesis hash of its log"
            raise InvalidNoteError(message, "chain", 0)
        return head

    def _check_continuity(self, batch: SealedBatch, after: Head) -> None:
        before = self._head_before(batch)
        first, last = batch.offsets[:8], batch.offsets[-8:]
        begin = int.from_bytes(first) if first else batch.next_offset
        end = int.from_bytes(last) + 1 if last else batch.next_offset
        check_follows(before, batch.first_index, batch.previous_leaf_hash, begin)
        if end > batch.next_offset:
            raise DiscontinuityError("its offsets reach beyond its next offset", "offset", batch.first_index)
        frontier = before.frontier.copy()
        frontier.extend(batch.leaf_hashes)
        check_checkpoint(after.checkpoint(), Checkpoint(batch.origin, frontier.size, frontier.root()))

    def _head_before(self, batch: SealedBatch) -> Head:
        """Return the head that the batch must continue: the verified one, or that of a new epoch's genesis."""
        # Step 2, Genesis: all batches name the same one, and that of a new epoch binds the head of the one before.
        genesis, head = batch.genesis, self.head
        if head is None:
            check_genesis(genesis, None)
            return Head.at_genesis(genesis)
        if genesis.origin == head.genesis.origin:
            if genesis != head.genesis:
                raise InvalidNoteError("the batch names another genesis", "genesis", batch.first_index)
            return head
        if (epoch := epoch_of(genesis.origin)) != epoch_of(head.genesis.origin) + 1:
            raise DiscontinuityError(
                f"epoch {epoch} does not follow {head.genesis.origin}", "genesis", batch.first_index
            )
        # Kafka may have lost the end of the epoch before. A person then bound the head of another copy.
        lost = genesis.previous_size > head.size
        check_genesis(genesis, None if self.assumed or lost else (head.size, head.frontier.root()))
        return Head.at_genesis(genesis)
