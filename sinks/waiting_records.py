"""Sealed batches that wait for their turn in the store."""

from __future__ import annotations

from collections import deque

from confluent_kafka import Message

MOST_RECORDS = 8


class WaitingRecords:
    """A queue of Kafka records, limited by their number and bytes: one may be 8 MiB."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._records: deque[Message] = deque()

    def __bool__(self) -> bool:
        return bool(self._records)

    @property
    def full(self) -> bool:
        """Whether no more records should be taken from Kafka."""
        return len(self._records) >= MOST_RECORDS or self._bytes >= self._most_bytes

    def append(self, message: Message) -> None:
        """Add the next record."""
        self._records.append(message)
        self._bytes += len(message)

    def popleft(self) -> Message:
        """Return and forget the first record."""
        message = self._records.popleft()
        self._bytes -= len(message)
        return message

    def clear(self) -> None:
        """Forget all records."""
        self._records.clear()
        self._bytes = 0
