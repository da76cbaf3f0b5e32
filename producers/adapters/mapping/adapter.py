"""The adapter of a mapping file: follows its rules, record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ....base.toml import ConfigError, load_toml
from ....schemas.event import GIVING, Action, Actor, Approval, Event, EventSource, IssuingSource, Resource, Subject
from ...json_fields import Fields
from ..contract import Adapter, Mapped, Skipped
from ..values import SYNTHESIZED, record_id, time_after
from .expressions import EvaluationError, holds, names_needed
from .file import ApprovalFields, MappingFile, Rule
from .values import Values

MAX_FILE_BYTES = 1024 * 1024
MAX_EVENTS = 1_000
"""From one record, by ``each``."""
SHIPPED = Path(__file__).with_name("shipped")


class MappingAdapter(Adapter):
    """Maps records by the rules of a mapping file, its class attribute ``MAPPING``."""

    MAPPING: ClassVar[MappingFile]
    SKIP_REASONS: ClassVar[dict[str, str]] = {}
    _NEEDED: ClassVar[frozenset[str] | None] = None
    """Members of which every record of the tool has at least one. Collectors' objects are recognized fast by it."""
    _COMMON: ClassVar[dict[str, Any]] = {}
    """The values that all rules share."""
    _GIVEN: ClassVar[tuple[dict[str, Any], ...]] = ()
    """The values of each rule, with those that all rules share."""

    @classmethod
    def owns(cls, record: dict[str, Any]) -> bool:
        """Return whether a JSON object is probably a record of this tool."""
        if cls._NEEDED is not None and cls._NEEDED.isdisjoint(record):
            return False
        try:
            return holds(cls.MAPPING.recognise, record)
        except EvaluationError:
            return False

    def map(self, record: Fields) -> Mapped | Skipped:
        """Return the events of one record, or the reason to skip it."""
        values = self._values(record)
        events: list[Event] = []
        counts: Counter[str] = Counter()
        for number, rule in self._matching(values):
            if rule.skip is not None:
                if not events:
                    return Skipped(rule.skip, values.text("native_type") or rule.name or f"rule {number}")
                break
            events += self._events(rule, number, values, counts)
            if not rule.also:
                break
        if not events:
            record.fail("", "no rule of the mapping makes an event of this record or skips it")
        return tuple(events)

    def matching(self, record: Fields) -> list[tuple[int, Rule]]:
        """Return the rules that apply to a record, with their numbers from 1. For reports to people."""
        found = []
        for number, rule in self._matching(self._values(record)):
            found.append((number, rule))
            if not rule.also:
                break
        return found

    def _matching(self, values: Values) -> Iterator[tuple[int, Rule]]:
        for number, rule in enumerate(self.MAPPING.rule, 1):
            if rule.when is None or values.holds(rule.when, f"rule {number}: when"):
                yield number, rule

    def _values(self, record: Fields) -> Values:
        ours: dict[str, Any] = {"instance": self.instance or self.SYSTEM, "item": None, "index": None}
        mapping = self.MAPPING
        values = Values({**record.values, "_": ours}, self._COMMON, mapping.lookup, record.location)
        for name, expression in mapping.define.items():
            ours[name] = values.evaluate(expression, f"define.{name}")
        if "native_type" in values.given:
            values.required_text("native_type")
        ours["id"] = values.text("native_id") or record_id(record.values)
        return values

    def _events(self, rule: Rule, number: int, values: Values, counts: Counter[str]) -> Iterator[Event]:
        given = self._GIVEN[number - 1]
        items = [None] if rule.each is None else values.evaluate(rule.each, f"rule {number}: each") or []
        if not isinstance(items, list):
            values.fail(f"rule {number}: each", "is not a list")
        if len(items) > MAX_EVENTS:
            values.fail(f"rule {number}: each", f"has more than {MAX_EVENTS} elements")
        for index, item in enumerate(items):
            event_type = rule.event or ""
            yield self._event(event_type, values.of_item(item, index, given), counts[event_type])
            counts[event_type] += 1

    def _event(self, event_type: str, values: Values, ordinal: int) -> Event:
        text = values.text
        occurred_at = values.time("occurred_at")
        if occurred_at is None:
            values.fail("occurred_at", "has no value in this record")
        source = EventSource(
            self.SYSTEM,
            self.instance or text("instance") or self.SYSTEM,
            text("native_id") or values.data["_"]["id"],
            text("native_type") or event_type,
        )
        subject = Subject(values.required_text("subject.id"), text("subject.kind") or "unknown", text("subject.email"))
        actor = Actor(subject.id, subject.kind, text("actor.on_behalf_of"))
        if "actor.id" in values.given:
            actor = Actor(values.required_text("actor.id"), text("actor.kind") or "unknown", actor.on_behalf_of)
        resource = None
        if "resource.id" in values.given:
            environment = text("resource.environment")
            resource = Resource(values.required_text("resource.kind"), values.required_text("resource.id"), environment)
        return Event(
            event_type=event_type,
            occurred_at=occurred_at,
            source=source,
            subject=subject,
            actor=actor,
            resource=resource,
            entitlement=text("entitlement"),
            **_ids(values),
            **_end(event_type, occurred_at, values),
            grant_source=_issuer("grant_source", values),
            request_source=_issuer("request_source", values),
            session_source=_issuer("session_source", values),
            approvals=tuple(_approvals(values)),
            starts_at=values.time("starts_at"),
            requested_seconds=values.integer("requested_seconds"),
            ends_by_itself=values.flag("ends_by_itself"),
            removal_evidence=text("removal_evidence"),
            reason=text("reason"),
            ticket=text("ticket"),
            customer=text("customer"),
            outcome=text("outcome") or "unknown",
            error=text("error"),
            client_ip=text("client_ip"),
            action=_action(values),
            ordinal=ordinal,
        )


def load_mapping(path: Path) -> type[MappingAdapter]:
    """Return the adapter of a mapping file.

    Raises:
        ConfigError: one line per mistake, with its line in the file.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if size > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    mapping = load_toml(path, MappingFile)
    common = dict(mapping.fields.flat())
    members = {
        "__doc__": f"Maps the records of {mapping.system}, by {path.name}.",
        "SYSTEM": mapping.system,
        "VERSION": mapping.version,
        "SKIP_REASONS": dict(mapping.skip_reason),
        "COVERS": mapping.covers,
        "DOES_NOT_SAY": mapping.does_not_say,
        "MAPPING": mapping,
        "_NEEDED": names_needed(mapping.recognise),
        "_COMMON": common,
        "_GIVEN": tuple(common | dict(rule.fields.flat()) for rule in mapping.rule),
    }
    return type(f"{mapping.system.title()}MappingAdapter", (MappingAdapter,), members)


def _ids(values: Values) -> dict[str, Any]:
    ids = {name: values.text(name) for name in ("grant_id", "request_id", "session_id")}
    made = (ids["grant_id"] or "").startswith(SYNTHESIZED)
    kind = values.text("grant_id_kind") or ("synthesized" if made else "native")
    return {**ids, "grant_id_kind": kind if ids["grant_id"] else None}


def _end(event_type: str, occurred_at: Any, values: Values) -> dict[str, Any]:
    until, source = values.time("expires_at"), "native"
    if until is None and (seconds := values.integer("expires_after_seconds")) is not None:
        until, source = time_after(values.time("starts_at") or occurred_at, seconds), "derived"
    if until is None:
        return {"expires_at": None, "expiry_source": "unknown" if event_type in GIVING else None}
    return {"expires_at": until, "expiry_source": values.text("expiry_source") or source}


def _issuer(name: str, values: Values) -> IssuingSource | None:
    system = values.text(f"{name}.system")
    return None if system is None else IssuingSource(system, values.text(f"{name}.instance") or "")


def _action(values: Values) -> Action | None:
    if not any(name.startswith("action.") for name in values.given):
        return None
    return Action(
        command=values.text("action.command"),
        args=values.texts("action.args"),
        query=values.text("action.query"),
        exit_code=values.integer("action.exit_code"),
        redacted=values.flag("action.redacted") or False,
        truncated=values.flag("action.truncated") or False,
    )


def _approvals(values: Values) -> Iterator[Approval]:
    tables: tuple[ApprovalFields, ...] = values.given.get("approvals", ())
    for table in tables:
        given = {f"approvals.{name}": value for name, value in table.flat() if name != "each"}
        items = [None] if table.each is None else values.evaluate(table.each, "approvals.each") or []
        for index, item in enumerate(items if isinstance(items, list) else [items]):
            one = values.of_item(item, index, given)
            yield Approval(
                one.required_text("approvals.reviewer"),
                one.required_text("approvals.decision"),
                group=one.text("approvals.group"),
                at=one.time("approvals.at"),
                reason=one.text("approvals.reason"),
                forced=one.flag("approvals.forced") or False,
            )
