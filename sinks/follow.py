"""Whether a sealed batch is the next one to store: the rule that ClickHouse never holds a fork or a hole. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import StoppedError
from ..ledger.batch import SealedBatch, leaf_at
from .evidence import Stored


@dataclass(slots=True)
class HeldLog:
    """One sealed partition in hand, and how far its log is stored."""

    topic: str
    partition: int
    stored: Stored | None


class StoringStoppedError(StoppedError):
    """What Kafka holds and what ClickHouse holds do not fit together; a person must look. Says where."""


def follows(stored: Stored, batch: SealedBatch) -> bool:
    """Return whether a batch of the stored log comes next; False where it is stored already.

    Raises:
        StoringStoppedError: it contradicts what is stored, or leaves a hole.
    """
    if batch.size <= stored.size:
        inside = batch.first_index <= stored.size - 1 < batch.size
        if inside and leaf_at(batch, stored.size - 1) != stored.last_leaf:
            raise StoringStoppedError(
                f"{batch.origin} index {stored.size - 1}: stored leaf differs from the sealed one"
            )
        return False
    if batch.first_index != stored.size:
        raise StoringStoppedError(
            f"{batch.origin} is stored up to {stored.size} entries, the next sealed batch begins at index "
            f"{batch.first_index}"
        )
    if batch.previous_leaf_hash != stored.last_leaf:
        raise StoringStoppedError(
            f"{batch.origin} index {batch.first_index}: the sealed entry does not name the stored one before it"
        )
    return True


def epoch_of(origin: str) -> int:
    """Return the epoch that an origin names."""
    return int(origin.rpartition("/")[2])
