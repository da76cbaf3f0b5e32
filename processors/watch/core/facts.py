"""The fields of one sealed event of ``access.lifecycle`` that the watch judges by."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from ....schemas.access_key import scope_prefix
from ....schemas.names import plain_name
from ...access import NEVER, Access, Source


class Decision(NamedTuple):
    """One reviewer's decision: approved, denied or pending."""

    reviewer: str
    decision: str
    forced: bool = False
    at: int | None = None
    """When, by the source's clock. None where a grant repeats the decisions about its request without times."""


PLACEHOLDER_NAMES = ("", "unknown")
"""The subject of a record that names no one."""


def names_someone(person: tuple[str, ...]) -> bool:
    """Whether a subject is a person or a program, not a placeholder."""
    return bool(person) and person[0] not in PLACEHOLDER_NAMES


def is_same_person(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two subjects share a name, in any Unicode form and case."""
    return bool(plain_names(one) & plain_names(other))


def plain_names(person: tuple[str, ...]) -> frozenset[str]:
    """Return the names of a subject as they are compared, without placeholders."""
    return frozenset(map(plain_name, person)).difference(PLACEHOLDER_NAMES)


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
    content: bytes = b""  # digest of the mapped fields; two contents of one event are a conflict
    mapping: bytes = b""  # digest of the adapter and its version
    signed: bool = False  # its source is registered and signed it
    received_at: int = NEVER  # when a gateway received it, where it is signed
    imported: bool = False  # its sender marked it as an import of history
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
    ends_by_itself: bool = False  # the credential stops working at ``expires``, whatever anybody does
    removal: str = "none"
    outcome: str = "unknown"
    # The sources that issued the ids, where the event names them; otherwise its own source issued them.
    grant_source: Source | None = None
    request_source: Source | None = None
    session_source: Source | None = None
    reason: str = ""  # why the access was requested or given; only for the person who is paged

    # They follow from the others, and are computed once. The keys are access keys, empty without an id.
    tenant: str = field(init=False)
    grant_key: str = field(init=False)
    request_key: str = field(init=False)
    session_key: str = field(init=False)
    event: int = field(init=False)
    """Digest of what identifies the event: 60 bits, a small integer. Of duplicates, the first in the log counts."""
    received: int = field(init=False)
    """When the pipeline received it: when the broker did, or a gateway before."""

    def __post_init__(self) -> None:
        """Compute the other fields."""
        tenant = self.tenant = "" if self.access is None else self.access[0]
        own = scope_prefix(tenant, *self.source)
        self.grant_key = self._key(own, self.grant_source, self.grant_id)
        same = self.request_id == self.grant_id and self.request_source == self.grant_source
        self.request_key = self.grant_key if same else self._key(own, self.request_source, self.request_id)
        self.session_key = self._key(own, self.session_source, self.session_id)
        identity = (own + self.event_id).encode("utf-8", "replace")
        self.event = int.from_bytes(blake2b(identity, digest_size=8).digest(), "big") >> 4
        self.received = self.append if self.append <= self.received_at else self.received_at

    def _key(self, own: str, named: Source | None, id: str) -> str:
        if not id:
            return ""
        return (scope_prefix(self.tenant, *named) if named is not None and named[0] else own) + id

    @property
    def clock_lead(self) -> int:
        """How far the source's clock was ahead of the broker's; 0 if it was not."""
        return max(0, self.occurred - self.append)
