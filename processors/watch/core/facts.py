"""The fields of one sealed event of ``access.lifecycle`` that the watch judges by."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from ...access import Access, Source


class Decision(NamedTuple):
    """One reviewer's decision: approved, denied or pending."""

    reviewer: str
    decision: str
    forced: bool = False


PLACEHOLDER_NAMES = ("", "unknown")
"""The subject of a record that names no one."""


def names_someone(person: tuple[str, ...]) -> bool:
    """Whether a subject is a person or a program, not a placeholder."""
    return bool(person) and person[0] not in PLACEHOLDER_NAMES


@dataclass(slots=True, kw_only=True)
class Fact:
    """One event. Times in microseconds since 1970."""

    index: int  # its position in the partition, epoch after epoch: facts are judged in this order
    entry: int  # its index in the log, which begins at 0 in every epoch
    append: int  # when the broker appended it; judgement uses this time
    occurred: int  # when it happened, by the source's clock
    event_id: str
    event_type: str
    source: Source
    content: bytes = b""  # digest of the event except its salt; two contents under one event id are a conflict
    seq: int | None = None  # the source's own counter
    access: Access | None = None
    environment: str = ""
    subject_kind: str = "unknown"
    person: tuple[str, ...] = ()  # id and email address of the subject; a reviewer with either is the subject
    grant_id: str = ""
    grant_id_kind: str = ""
    request_id: str = ""
    session_id: str = ""
    decisions: tuple[Decision, ...] = ()
    starts: int | None = None
    expires: int | None = None
    native: bool = False  # the tool itself ends the access at ``expires``
    removal: str = "none"
    outcome: str = "unknown"

    @property
    def event_key(self) -> bytes:
        """Digest of the event id, 8 bytes. Of duplicates, the first in the log counts."""
        return blake2b(self.event_id.encode("utf-8", "replace"), digest_size=8).digest()

    @property
    def clock_lead(self) -> int:
        """How far the source's clock was ahead of the broker's; 0 if it was not."""
        return max(0, self.occurred - self.append)
