"""Verifies the sealed batches of one partition, in order. Pure: bytes in, verified batches or errors out.

A reader of a sealed topic trusts nothing but the log's public key and the last head that it verified itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ledger import batch as batches
from ..ledger import columns
from ..ledger.batch import BatchError, Head, Records, SealedBatch
from ..ledger.entry import chain, payload_hashes


class InvalidRecordError(ValueError):
    """A record without a valid note of this log. Readers skip it. Rule ``sealed_record_invalid``."""


class DiscontinuousLogError(ValueError):
    """A batch with a valid note that does not continue the log. Rule ``sealed_log_discontinuous``."""


@dataclass(frozen=True, slots=True)
class VerifiedBatch:
    """A verified sealed batch, its place in the sealed topic, and the head of the log after it."""

    batch: SealedBatch
    head: Head
    offset: int

    def records(self) -> Records:
        """Return the entries as lists."""
        return self.batch.records()


class SealedLogVerifier:
    """Verifies one batch after the other.

    Args:
        log: the partition's origin without the epoch: ``<deployment>/<topic>/<partition>``.
        public_keys: keys of the log; a note by any of them is valid.
        head: the last verified head. Without one, the first valid batch is taken as the beginning.
        payloads: also recompute the hash of every payload. Required where decisions depend on the payloads.
    """

    def __init__(
        self, log: str, public_keys: Sequence[bytes], head: Head | None = None, *, payloads: bool = True
    ) -> None:
        self._prefix, self._keys, self._payloads = f"{log}/", tuple(public_keys), payloads
        self.head = head

    def verify(self, value: bytes | None, offset: int) -> VerifiedBatch:
        """Verify the next record of the sealed partition and advance the head.

        Raises:
            InvalidRecordError: it is not a batch of this log, its note is not valid, or its contents are not those
                that were signed.
            DiscontinuousLogError: it does not continue the log. The head stays where it is.
        """
        # 1. Decode the batch and verify the note: root, first index, last leaf, next offset and time are signed.
        try:
            batch = batches.decode(value or b"")
            head = self._signed_head(batch)
            # 2. Recompute the leaf hashes of its entries, with the payload hashes if required.
            leaves = self._leaves(batch)
        except BatchError as error:
            raise InvalidRecordError(str(error)) from error
        # 3. Check that the batch continues the last verified head.
        base = self._base(batch)
        # 4. Recompute the root. Without a head before the batch only its signature vouches for the entries before it.
        if base is not None:
            frontier = base.frontier.copy()
            frontier.extend(leaves)
            if frontier.pack() != batch.frontier:
                raise DiscontinuousLogError(f"{_place(batch)}: the signed root is not the root over the entries")
        self.head = head
        return VerifiedBatch(batch, head, offset)

    def _signed_head(self, batch: SealedBatch) -> Head:
        if not batch.origin.startswith(self._prefix):
            raise InvalidRecordError(f"a batch of {batch.origin}, not of {self._prefix}")
        problem: BatchError | None = None
        for key in self._keys:
            try:
                return batch.head(key)
            except BatchError as error:
                problem = problem or error
        raise problem or InvalidRecordError("no public key is configured")

    def _leaves(self, batch: SealedBatch) -> list[bytes]:
        if batch.first_index == 0 and batch.previous_leaf_hash != batch.genesis.hash():
            raise InvalidRecordError(f"{_place(batch)}: the first entry does not name the genesis")
        hashes = columns.unpack_hashes(batch.payload_hashes)
        if self._payloads:
            records = batch.records()
            if payload_hashes(records.keys, records.values, records.headers) != hashes:
                raise InvalidRecordError(f"{_place(batch)}: a payload is not the one that was sealed")
        offsets, times = columns.unpack_u64(batch.offsets), columns.unpack_i64(batch.append_times)
        leaves = chain(batch.previous_leaf_hash, batch.flags, offsets, times, hashes)
        if b"".join(leaves) != batch.leaf_hashes:
            raise InvalidRecordError(f"{_place(batch)}: an entry is not the one that was sealed")
        return leaves

    def _base(self, batch: SealedBatch) -> Head | None:
        """Return the head that the batch continues; None for the first batch, if entries precede it.

        Raises:
            DiscontinuousLogError: it does not continue the last verified head.
        """
        head, genesis = self.head, batch.genesis
        if head is None:
            return Head.at_genesis(genesis) if batch.first_index == 0 else None
        if genesis.origin == head.genesis.origin:
            if genesis != head.genesis:
                raise DiscontinuousLogError(f"{_place(batch)}: another genesis")
            expected = (head.size, head.last_leaf)
            if (batch.first_index, batch.previous_leaf_hash) != expected or batch.next_offset < head.next_offset:
                raise DiscontinuousLogError(
                    f"{_place(batch)}: the log continues at index {head.size}, input offset {head.next_offset}"
                )
            return head
        ended = (head.size, head.frontier.root())
        if _epoch(genesis.origin) != _epoch(head.genesis.origin) + 1 or batch.first_index:
            raise DiscontinuousLogError(f"{_place(batch)}: not the beginning of the epoch after {head.genesis.origin}")
        if (genesis.previous_size, genesis.previous_root) != ended:
            raise DiscontinuousLogError(f"{_place(batch)}: its genesis does not name the end of the previous epoch")
        return Head.at_genesis(genesis)


def _place(batch: SealedBatch) -> str:
    return f"batch of {batch.origin} at index {batch.first_index}"


def _epoch(origin: str) -> int:
    epoch = origin.rpartition("/")[2]
    return int(epoch) if epoch.isdigit() else -1
