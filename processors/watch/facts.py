"""What the watch takes from one sealed event of ``access.lifecycle``. Times are microseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple


class Access(NamedTuple):
    """What is held: two grants of one access overlap, and the access lasts as long as their union."""

    tenant: str
    subject: str
    resource_kind: str
    resource: str
    entitlement: str


class Source(NamedTuple):
    """Who says so: the tool and which installation of it."""

    system: str
    instance: str

    def __str__(self) -> str:
        return f"{self.system}/{self.instance}"


class Decision(NamedTuple):
    """One reviewer's decision: approved, denied or pending."""

    reviewer: str
    decision: str
    forced: bool = False


@dataclass(slots=True, kw_only=True)
class Fact:
    """One event. ``index`` is its place in the log, which alone says what came before what.

    Attributes:
        append: when the broker took it; the time that counts.
        occurred: when it happened by the source's clock.
        content: digest of everything in the event but its salt: one event id with two contents is a conflict.
        seq: counter of the sending instance, where there is one.
        native: the tool itself ends the access at ``expires``.
        person: the subject's id and mail address, either of which may stand for them as a reviewer.
    """

    index: int
    append: int
    occurred: int
    event_id: str
    event_type: str
    source: Source
    content: bytes = b""
    seq: int | None = None
    access: Access | None = None
    environment: str = ""
    subject_kind: str = "unknown"
    person: tuple[str, ...] = ()
    grant_id: str = ""
    grant_id_kind: str = ""
    request_id: str = ""
    session_id: str = ""
    decisions: tuple[Decision, ...] = ()
    starts: int | None = None
    expires: int | None = None
    native: bool = False
    removal: str = "none"
    outcome: str = "unknown"

    @property
    def told(self) -> bytes:
        """What tells the event from others, in 8 bytes: its id. Of what is told twice, the first telling stands."""
        return blake2b(self.event_id.encode("utf-8", "replace"), digest_size=8).digest()

    @property
    def fast_by(self) -> int:
        """By how much the source's clock was ahead of the broker's; 0 where it was not."""
        return max(0, self.occurred - self.append)
