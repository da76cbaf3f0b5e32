"""The fields of one sealed event of ``access.lifecycle`` that the watch judges by."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from ....schemas.access_key import access_key, issuer_of
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

    @property
    def tenant(self) -> str:
        """The tenant."""
        return self.access.tenant if self.access is not None else ""

    @property
    def grant_key(self) -> str:
        """Access key of the grant, empty without one."""
        return self._key(self.grant_source, self.grant_id)

    @property
    def request_key(self) -> str:
        """Access key of the request, empty without one."""
        return self._key(self.request_source, self.request_id)

    @property
    def session_key(self) -> str:
        """Access key of the session, empty without one."""
        return self._key(self.session_source, self.session_id)

    def _key(self, named: Source | None, id: str) -> str:
        return access_key(self.tenant, issuer_of(self.source, named), id) if id else ""

    @property
    def event_key(self) -> bytes:
        """Digest of what identifies the event, 8 bytes. Of duplicates, the first in the log counts."""
        identity = access_key(self.tenant, self.source, self.event_id)
        return blake2b(identity.encode("utf-8", "replace"), digest_size=8).digest()

    @property
    def received(self) -> int:
        """When the pipeline received it: when the broker did, or a gateway before."""
        return min(self.append, self.received_at)

    @property
    def clock_lead(self) -> int:
        """How far the source's clock was ahead of the broker's; 0 if it was not."""
        return max(0, self.occurred - self.append)
