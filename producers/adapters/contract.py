"""The contract of every adapter: one native record in; events, or a reason to skip the record, out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

from ...schemas.event import Event, Mapping
from ...schemas.rules import InvalidEventError, check
from ..json_fields import Fields, Location, RecordError, parse_object
from ..redaction.marks import MARK_START
from ..redaction.redactor import Known, Redaction, Redactor, known_of

_MARK_START = MARK_START.encode()
DEFAULT_REDACTOR = Redactor()
"""The built-in rules of the level default."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that does not become an event, on purpose.

    ``reason`` is one of the keys of ``Adapter.SKIP_REASONS``; reports count the reasons. ``detail`` is for people and
    contains the tool's name for the record.
    """

    reason: str
    detail: str


Mapped = tuple[Event, ...]
"""The events made from one record, in the order to send them. Never empty."""


EVENT_UNKNOWN = "event_unknown"
"""The reason to skip a well-formed record of a type that the adapter does not know. Such records are kept."""
COMMON_REASONS = {
    "blank_line": "an empty line",
    "collector_message": "a message of a collector about itself, such as a CloudWatch Logs control message",
}


class Adapter(ABC):
    """Maps the records of one tool to events.

    A subclass defines ``SYSTEM``, ``VERSION``, ``SKIP_REASONS`` and ``map``. It promises the following, and the
    contract test in ``tests/unit/test_adapters.py`` checks it:

    - ``map`` reads no clock. Reading a file twice gives the same event ids. A record that only refers to earlier ones
      (the end of a lock) may use what the adapter remembers of this run; an id never depends on it.
    - It invents nothing: an id that is not in the record is marked as synthesized.
    - A skipped record never reaches the ledger, except one of an unknown type, so ``map`` skips nothing that concerns a
      person's access or actions.

    Args:
        instance: ``source.instance``; default: taken from each record.
        tenant: ``tenant`` of every event.
    """

    SYSTEM: ClassVar[str]
    """``source.system``, and the tool's name in ``grantledger import``."""
    VERSION: ClassVar[str]
    """``mapping.version``: increase it whenever a record is mapped differently."""
    SKIP_REASONS: ClassVar[dict[str, str]]
    """Every possible ``Skipped.reason``, with its meaning. Those of ``COMMON_REASONS`` are added automatically."""
    REMEMBERS: ClassVar[bool] = False
    """Whether a record may be mapped with what earlier records said. Then `follow` reads them again after a start."""
    MARKS: ClassVar[tuple[frozenset[str], ...]] = ()
    """Sets of members. A JSON object with all members of one set is probably a record of this tool: it is not opened as
    an envelope, and `import` can name the right tool for a file that was given to another adapter."""

    HIDES: ClassVar[tuple[bytes, ...]] = ()
    """What a record has if ``redact`` may find anything in it: one of these. ``redact`` is called for no other."""

    COVERS: ClassVar[tuple[str, ...]] = ()
    """What becomes an event, in short sentences, for ``grantledger adapters``."""
    DOES_NOT_SAY: ClassVar[tuple[str, ...]] = ()
    """What the tool itself does not record, and what closes the gap."""

    def __init_subclass__(cls) -> None:
        cls.SKIP_REASONS = {**COMMON_REASONS, **cls.SKIP_REASONS}

    @classmethod
    def owns(cls, record: dict[str, Any]) -> bool:
        """Return whether a JSON object is probably a record of this tool."""
        members = record.keys()
        return any(marks <= members for marks in cls.MARKS)

    def __init__(self, *, instance: str | None = None, tenant: str = "default") -> None:
        self.instance = instance
        self.tenant = tenant
        self.redactor: Redactor | None = DEFAULT_REDACTOR
        """Removes secrets from each record before it is mapped and hashed. None: records stay as they are."""
        self._mapping = Mapping(self.SYSTEM, self.VERSION)

    @final
    def read(self, raw: bytes, location: Location, values: dict[str, Any] | None = None) -> Mapped | Skipped:
        """Return the events of one record, given without its line end, or the reason to skip it.

        Args:
            raw: the record.
            location: its position, for errors.
            values: the same as parsed JSON, if it was parsed.

        Raises:
            RecordError: the record is not valid for this tool, or an event breaks a rule. Nothing else is raised.
        """
        if not raw.strip():
            return Skipped("blank_line", "an empty line")
        record = self.parse(raw, location) if values is None else Fields(values, location)
        record, raw = self._without_secrets(record, raw, lambda: self._known(record))
        mapped = self.map(record)
        if isinstance(mapped, Skipped):
            return mapped
        if self.redactor is not None and (_MARK_START in raw or self._hides(raw)):
            mapped = tuple(_marked(event) for event in mapped)
        digest = hashlib.sha256(raw).digest()
        tenant, mapping = self.tenant, self._mapping
        events = tuple(replace(one, tenant=tenant, mapping=mapping, raw=raw, raw_sha256=digest) for one in mapped)
        for event in events:
            try:
                check(event)
            except InvalidEventError as error:
                raise RecordError(location, error.field, error.problem) from error
        return events

    @final
    def kept(self, raw: bytes, location: Location, values: dict[str, Any]) -> bytes | None:
        """Return a record that could not be mapped as it may be kept: without secrets.

        None if it is not one of this tool, or if nobody can tell what is secret in it.
        """
        if not self.owns(values):
            return None
        try:
            return self._without_secrets(Fields(values, location), raw, Known)[1]
        except RecordError:
            return None

    def _without_secrets(self, record: Fields, raw: bytes, known: Callable[[], Known | None]) -> tuple[Fields, bytes]:
        if self.redactor is None:
            return record, raw
        own = self.redact if self._hides(raw) else None
        try:
            values = self.redactor.record(record.values, raw, known, own)
        except RecursionError:
            raise RecordError(record.location, None, "nested too deeply") from None
        if values is record.values:
            return record, raw
        redacted = replace(record, values=values)
        return redacted, redacted.encoded()

    @property
    def mapping(self) -> Mapping:
        """What maps the records: the adapter and its version."""
        return self._mapping

    def parse(self, raw: bytes, location: Location) -> Fields:
        """Return a record. An adapter for records that are no JSON objects has its own.

        Raises:
            RecordError: it is no record of the tool.
        """
        return parse_object(raw, location)

    def begins(self, line: bytes) -> bool:
        """Return whether a line of text is the beginning of a record whose end may be on a later line."""
        return False

    def goes_on(self, line: bytes, begun: bool) -> bool:
        """Return whether the record of a line goes on in the next one. ``begun``: the line continues one itself."""
        return False

    def redact(self, values: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
        """Return a record without the secrets that only the adapter finds, such as those in encoded members.

        What the rules find in texts, in the words of commands and in members with the names of secrets is removed
        afterwards. The result takes the place of the record: it is mapped and hashed, and ``raw`` contains it.
        """
        return values

    def _hides(self, raw: bytes) -> bool:
        return any(hiding in raw for hiding in self.HIDES)

    def _known(self, record: Fields) -> Known | None:
        """Return what the events of a record say; None if this record alone does not show it.

        Another adapter maps it, so that this one remembers nothing of it.
        """
        try:
            mapped = type(self)(instance=self.instance, tenant=self.tenant).map(record)
        except (RecordError, InvalidEventError):
            return None
        return None if isinstance(mapped, Skipped) else known_of(mapped)

    @abstractmethod
    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one parsed record, or the reason to skip it. ``read`` adds the other fields."""


def _marked(event: Event) -> Event:
    """Return an event whose action is marked if a mark stands in it."""
    action = event.action
    if action is None or action.redacted:
        return event
    texts = (action.command, action.query, *action.args)
    if not any(MARK_START in text for text in texts if text):
        return event
    return replace(event, action=replace(action, redacted=True))
