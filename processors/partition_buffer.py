"""The records of one partition that the sealer has read and not yet committed."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from datetime import datetime

from ..base.errors import UsageError
from ..ledger import batch as batches
from ..ledger.batch import Head, Records, SealedBatch
from ..ledger.keys import LogSigners
from ..schemas.event import ACTIVITY_TOPIC, QUERIES_TOPIC

MAX_LINGER = 0.2
"""Seconds, for every topic but the one with the high rate: deadlines and alerts depend on these logs."""


class RecordOrderError(ValueError):
    """Records of a partition did not arrive in offset order."""


class SignerMissingError(UsageError):
    """The private key that signs a checkpoint is not here."""


def linger_of(topic: str, linger: float) -> float:
    """Return how many seconds a record of a topic may wait until its batch is full. ``linger`` is the setting."""
    return linger if topic in (ACTIVITY_TOPIC, QUERIES_TOPIC) else min(linger, MAX_LINGER)


@dataclass(slots=True)
class PartitionBuffer:
    """The committed head of a log, the records read since, and the batches sealed but not committed.

    Attributes:
        stated_at: when the head was last written to the sealed topic; all times on the sealer's clock, in seconds.
        linger: seconds that a record may wait.
        oldest_at: when the oldest record in the buffer arrived.
        payload: bytes of the records.
        is_new: the log has no batch yet; its genesis is written at once.
    """

    head: Head
    stated_at: float
    linger: float
    oldest_at: float | None = None
    records: Records = field(default_factory=Records)
    payload: int = 0
    is_new: bool = False
    batches: list[tuple[SealedBatch, Head]] = field(default_factory=list)

    def due_at(self) -> float:
        """Return when the records must be sealed; infinite if there are none."""
        return math.inf if self.oldest_at is None else self.oldest_at + self.linger

    def is_due(self, now: float, interval: float, signers: LogSigners) -> bool:
        """Whether the records must be sealed, or the head stated again."""
        return self.due_at() <= now or self.must_state_head(now, interval, signers)

    def must_state_head(self, now: float, interval: float, signers: LogSigners) -> bool:
        """Whether the head must be written even if there are no records.

        If the log has no entry since the key was changed, its head is signed by an older key. Without that private key
        the head is not stated again: the batch that has it stays the last one.
        """
        due = self.is_new or now - self.stated_at >= interval
        return due and signers.at(self.head.genesis.origin, self.head.size) is not None

    @property
    def next_head(self) -> Head:
        """The head once the sealed batches are committed."""
        return self.batches[-1][1] if self.batches else self.head

    def seal(self, signers: LogSigners, now: datetime, position: int = 0) -> None:
        """Seal the records as one batch; without records, restate the head.

        Args:
            position: the consumer's position, if the buffer holds everything before it. It skips the transaction
                markers and aborted records after the last record: otherwise retention would one day seem to have
                deleted records that were never sealed.

        Raises:
            RecordOrderError: the offsets do not rise.
            SignerMissingError: a checkpoint of this size is signed by a private key that is not here.
        """
        records, next_offset = self.records, self.next_head.next_offset
        if records.offsets:
            if records.offsets[0] < next_offset or any(map(operator.ge, records.offsets, records.offsets[1:])):
                raise RecordOrderError(f"{self.head.genesis.origin}: records arrived out of order; they are read again")
            next_offset = records.offsets[-1] + 1
        origin, size = self.head.genesis.origin, self.next_head.size + len(records)
        if (signer := signers.at(origin, size)) is None:
            raise SignerMissingError(f"the private key that signs {origin} with {size} entries is not here (key_file)")
        self.batches.append(batches.seal(self.next_head, records, max(next_offset, position), now, signer))
        self.records, self.payload = Records(), 0

    def committed(self, now: float) -> None:
        """The sealed batches are committed."""
        self.head, self.batches, self.is_new, self.stated_at = self.next_head, [], False, now
        self.oldest_at = now if self.records.offsets else None

    def discard(self) -> None:
        """Return to the committed head. The records are read again from its offset."""
        self.batches, self.records, self.payload, self.oldest_at = [], Records(), 0, None
