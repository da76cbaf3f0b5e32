"""Consecutive batches of one log that ClickHouse receives as one insert. Pure.

Small inserts cost ClickHouse about the same as large ones, so batches that arrive while another insert runs are merged.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import pyarrow as pa
from confluent_kafka import Message

from ..ledger.batch import SealedBatch
from .continuity import StoredPartition
from .evidence import StoringStoppedError
from .insert_attempt import InsertAttempt
from .rows import needed_columns

MAX_ROWS = 100_000
"""Limit of a group of several batches."""
LARGE_ROWS = 50_000
"""From here on, or from three quarters of its bytes on, a group does not wait for more batches."""


@dataclass(slots=True)
class InsertGroup:
    """A group, and how far it is complete.

    Attributes:
        begin: Kafka offset of its first batch.
        last: the record of its last batch; the offset after it is committed once the group is stored.
        attempted: the attempt that this group repeats, if any.
        due: time before which a small group waits for more batches (monotonic clock).
        most_bytes: limit of a group of several batches, in memory.
    """

    partition: StoredPartition
    origin: str
    first_index: int
    month: str
    begin: int
    last: Message
    due: float
    most_bytes: int
    attempted: InsertAttempt | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    size: int = 0
    last_leaf: bytes = b""
    batches: int = 0
    rows: int = 0
    bytes: int = 0
    tables: list[pa.Table] = field(default_factory=list)
    needed: frozenset[str] = frozenset()

    @classmethod
    def begin_with(
        cls, partition: StoredPartition, batch: SealedBatch, message: Message, due: float, most_bytes: int
    ) -> InsertGroup:
        """Return an empty group for a batch and those after it."""
        month, begin = _month(batch), message.offset() or 0
        group = cls(partition, batch.origin, batch.first_index, month, begin, message, due, most_bytes)
        attempted = partition.attempted
        if attempted is not None and (attempted.origin, attempted.first_index) == (batch.origin, batch.first_index):
            group.attempted, group.token = attempted, attempted.token
        partition.attempted = None
        return group

    def takes(self, batch: SealedBatch, table: pa.Table) -> bool:
        """Return whether a batch, the next of its log, belongs to this group.

        Raises:
            StoringStoppedError: the group repeats an insert, and the sealed log no longer has the batches of it.
        """
        if self.attempted is not None:
            if self.size >= self.attempted.size:
                return False
            if batch.origin != self.origin or batch.size > self.attempted.size:
                raise StoringStoppedError(
                    f"{self.origin}: an insert up to index {self.attempted.size - 1} was begun, and no sealed batch "
                    "ends there any more"
                )
            return True
        if not self.batches:
            return True
        fits = self.rows + batch.count <= MAX_ROWS and self.bytes + _sent_bytes(table) <= self.most_bytes
        return fits and (batch.origin, _month(batch)) == (self.origin, self.month)

    def add(self, batch: SealedBatch, table: pa.Table, message: Message) -> None:
        """Append a batch."""
        self.tables.append(table)
        self.needed |= needed_columns(table)
        self.bytes += _sent_bytes(table)
        self.size, self.last_leaf, self.last = batch.size, batch.last_leaf, message
        self.batches, self.rows = self.batches + 1, self.rows + batch.count

    @property
    def complete(self) -> bool:
        """Whether it can be inserted: a repeated insert needs all its batches."""
        return self.attempted is None or self.size >= self.attempted.size

    @property
    def large(self) -> bool:
        """Whether more batches would hardly make the insert cheaper per row."""
        return self.rows >= LARGE_ROWS or self.bytes >= self.most_bytes * 3 // 4

    @property
    def attempt(self) -> InsertAttempt:
        """What is recorded before the insert."""
        return InsertAttempt(self.origin, self.first_index, self.size, self.token)

    def table(self) -> pa.Table:
        """Return the rows without empty columns in one chunk, because ClickHouse may store each chunk as a block."""
        names = [name for name in self.tables[0].schema.names if name in self.needed]
        tables = [table.select(names) for table in self.tables]
        self.tables = [pa.concat_tables(tables).combine_chunks() if len(tables) > 1 else tables[0]]
        return self.tables[0]


def _sent_bytes(table: pa.Table) -> int:
    """Return the bytes of the columns that an insert of these rows alone must have."""
    needed = needed_columns(table)
    return int(table.select([name for name in table.schema.names if name in needed]).nbytes)


def _month(batch: SealedBatch) -> str:
    """Return the month of a batch, the partition key of ``entries``."""
    return batch.sealed_at.strftime("%Y%m")
