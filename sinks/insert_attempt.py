"""The record of an insert that has been started, so that another process can repeat exactly this insert. Pure.

ClickHouse deduplicates whole inserts by their token, and which batches one insert has depends on the moment. So before
an insert starts, its range and token are committed to Kafka, as the metadata of the offset. The next owner of the log
finds them there, and repeats the insert unchanged, even if ClickHouse still works on the first one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ledger.entry import epoch_of
from .evidence import Stored

_MARK = "insert"


@dataclass(frozen=True, slots=True)
class InsertAttempt:
    """An insert that may have been started: the entries from ``first_index`` to below ``size``, and its token."""

    origin: str
    first_index: int
    size: int
    token: str

    def metadata(self) -> str:
        """Return the text that is committed with the offset."""
        return f"{_MARK} {self.first_index} {self.size} {self.token} {self.origin}"

    @classmethod
    def of_metadata(cls, text: str) -> InsertAttempt | None:
        """Return the attempt in committed metadata, or None if there is none."""
        mark, *fields = text.split(" ")
        if mark != _MARK or len(fields) != 4 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            return None
        return cls(fields[3], int(fields[0]), int(fields[1]), fields[2])

    def is_open(self, stored: Stored | None) -> bool:
        """Return whether it is the next insert of a log that is stored this far. If not, its result is known."""
        if stored is not None and stored.origin == self.origin:
            return stored.size == self.first_index
        return self.first_index == 0 and (stored is None or epoch_of(stored.origin) < epoch_of(self.origin))
