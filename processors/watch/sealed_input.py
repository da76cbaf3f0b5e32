"""The verified input of the watch. Faust may deliver records twice, or a later one before a seek takes effect.

If a delivered record does not continue the verified head, the skipped records are read from Kafka first. Only records
that Kafka lacks count as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from confluent_kafka import Message

from ...kafka.sealed_log import SealedBatchVerifier, VerifiedBatch
from ...ledger import batch as batches
from ...ledger.batch import BatchError


class SealedInput:
    """Verifies delivered records in the order of the log.

    ``verifier`` has the head before ``start``, the offset of the next record to read. ``read`` yields
    the committed records from one offset up to, but not including, another one.
    """

    def __init__(
        self, verifier: SealedBatchVerifier, start: int, read: Callable[[int, int], Iterable[Message]]
    ) -> None:
        self._verifier, self._next, self._read = verifier, start, read

    @property
    def stopped(self) -> bool:
        """Whether a batch did not continue the log. No later record is accepted."""
        return self._verifier.stopped

    def accept(self, record: Message) -> Iterator[VerifiedBatch]:
        """Yield the batches up to this record that were not yielded before. Skipped records are reported."""
        offset = record.offset() or 0
        if self.stopped or offset < self._next:
            return
        if offset > self._next and not self._continues(record):
            for earlier in self._read(self._next, offset):
                yield from self._verified(earlier)
            self._next = offset
        yield from self._verified(record)

    def _verified(self, record: Message) -> Iterator[VerifiedBatch]:
        offset, verified = record.offset() or 0, self._verifier.accept(record)
        if verified is not None or offset == self._next:  # a skipped record must not hide unread ones before it
            self._next = offset + 1
        if verified is not None:
            yield verified

    def _continues(self, record: Message) -> bool:
        """Whether the batch claims to follow the head. Usually, only transaction markers are between two records."""
        head = self._verifier.head
        if head is None:
            return False
        try:
            batch = batches.decode(record.value() or b"")
        except BatchError:
            return False
        place = (batch.origin, batch.first_index, batch.previous_leaf_hash)
        return place == (head.genesis.origin, head.size, head.last_leaf)
