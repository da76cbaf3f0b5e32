"""A partition in the sealer's hands."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ledger.batch import Head, Records, SealedBatch


@dataclass(slots=True)
class HeldLog:
    """One partition in hand: the committed head, and what has been read since."""

    head: Head
    restated: float
    records: Records = field(default_factory=Records)
    payload: int = 0
    unwritten: bool = False
    full: list[tuple[SealedBatch, Head]] = field(default_factory=list)

    @property
    def next_head(self) -> Head:
        """Where the log stands once the full batches are committed."""
        return self.full[-1][1] if self.full else self.head
