"""What every adapter keeps to: one native record in; events, a stated reason to skip it, or a named failure out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

from ...schemas.event import Event
from ...schemas.rules import InvalidEventError, check
from .reading import Fields, Place, RecordError, parse_object


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is no event, on purpose.

    ``reason`` is a short stable word, counted in reports and listed in ``Adapter.SKIP_REASONS``; ``detail`` says it
    for a reader, with the tool's own word for the record.
    """

    reason: str
    detail: str


Mapped = tuple[Event, ...]
"""One or more events from one record, in the order in which they are to be sent."""


class Adapter(ABC):
    """Turns the records of one tool into events.

    A subclass gives ``SYSTEM``, ``SKIP_REASONS`` and ``map``; ``read`` is the same for all. What a subclass promises
    (and ``tests/unit/test_adapters.py`` checks for every adapter in the registry):

    - a pure function of the record: no clock, no state, so that reading a file again gives the same event ids;
    - nothing is made up: an id that the record does not hold is marked as synthesized;
    - a skipped record is lost from the ledger, so what is about somebody's access or action is mapped.

    Args:
        instance: ``source.instance``; where None, what the record itself says.
        tenant: ``tenant`` of every event.
    """

    SYSTEM: ClassVar[str]
    """``source.system``, and the name in the registry."""
    SKIP_REASONS: ClassVar[dict[str, str]]
    """Every word that ``Skipped.reason`` may hold, with what it means."""
    UNIT: ClassVar[Literal["line", "document"]] = "line"
    """How a file is cut into records: one a line, or the whole file."""
    WRAPPER: ClassVar[str | None] = None
    """The member under which the tool keeps its records, where it writes files of ``{"<member>": [record, …]}``. Such a
    file is told from one record a line by its beginning."""

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        self.instance = instance
        self.tenant = tenant

    @final
    def read(self, raw: bytes, place: Place) -> Mapped | Skipped:
        """Return the events of one record, or why it is none.

        Args:
            raw: the record as it came, without the end of the line.
            place: where it stands, for messages.

        Raises:
            RecordError: the record is not what this tool writes, or breaks a rule of the events. Nothing else is
                raised, whatever the bytes.
        """
        if not raw.strip():
            return Skipped("blank_line", "an empty line")
        outcome = self.map(parse_object(raw, place))
        if isinstance(outcome, Skipped):
            return outcome
        digest = hashlib.sha256(raw).digest()
        events = tuple(replace(event, tenant=self.tenant, raw=raw, raw_sha256=digest) for event in outcome)
        for event in events:
            try:
                check(event)
            except InvalidEventError as error:
                raise RecordError(place, error.field, str(error).partition(": ")[2]) from error
        return events

    @abstractmethod
    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one parsed record. ``raw``, its digest and the tenant are filled in by ``read``.

        Raises:
            RecordError: by way of the readers of ``Fields``.
        """


def synthesized(kind: str, *parts: str) -> str:
    """Return an id for what the tool left without one; the prefix says that it is ours.

    The same parts give the same id.
    """
    name = "\x1f".join(parts).encode()
    return f"synthesized:{kind}:{hashlib.sha256(name).hexdigest()[:32]}"
