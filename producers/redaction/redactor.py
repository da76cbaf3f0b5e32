"""Applies rules to records and events. What is found is replaced by a mark with the name of its rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...schemas.event import Action, Approval, Event
from ..json_fields import DECODER
from .hints import record_of
from .marks import MARK_START, is_no_secret, mark_of
from .numbers import Span, is_card
from .rules import RULES, SQL_PARAMETERS, TOO_DEEP, Rule, of_word, program_of, rule_of_member

Level = Literal["off", "default", "strict"]
LEVELS: tuple[Level, ...] = ("off", "default", "strict")
MOST_DEPTH = 200
"""What is nested more deeply is removed."""
MOST_QUERIES = 64
"""If the events of a record have more statements, every text with quotes in it is read as one."""
MOST_COMPARED = 16 << 20
"""Characters of statements that texts are compared with. Afterwards, every text with quotes in it is read as one."""
_MOST_PASSES = 3
"""What one rule leaves may be found by another."""
_PROGRAM_MEMBERS = ("command", "program", "cmd", "exe", "path")
_NAME_MEMBERS = ("name", "Name", "key", "Key")
_VALUE_MEMBERS = ("value", "Value")
_CARD = "card_number"


@dataclass(frozen=True, slots=True)
class Known:
    """What the events of a record say, so that redaction leaves it or finds it.

    Attributes:
        who: the people and programs. No rule removes these.
        named: also the resources, roles and ids. No rule for personal data removes these.
        queries: the statements.
    """

    who: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    queries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnField:
    """A rule for the value at a path in a record; ``*`` is any member or element."""

    name: str
    path: tuple[str, ...]
    level: Level = "default"


def known_of(events: Iterable[Event]) -> Known:
    """Return what events say."""
    who: set[str | None] = set()
    named: set[str | None] = set()
    queries: dict[str, None] = {}
    for event in events:
        actor, subject, source, resource = event.actor, event.subject, event.source, event.resource
        who |= {subject.id, subject.email, actor.id, actor.on_behalf_of}
        who |= {one.reviewer for one in event.approvals}
        named |= {event.entitlement, event.grant_id, event.request_id, event.session_id, event.client_ip, event.ticket}
        named |= {source.native_id, source.instance, event.tenant, event.customer}
        named |= {one.group for one in event.approvals}
        if resource is not None:
            named |= {resource.id, resource.environment}
        if event.action is not None and event.action.query:
            queries[event.action.query] = None
    people = frozenset(one for one in who if one)
    return Known(people, people | {one for one in named if one}, tuple(queries))


Own = Callable[[dict[str, Any], "Redaction"], dict[str, Any]]


class Redactor:
    """The rules of one level.

    Args:
        strict: apply also the rules of the level strict.
        own: further rules, after the built-in ones.
        own_fields: further rules by path.
    """

    def __init__(self, *, strict: bool = False, own: Sequence[Rule] = (), own_fields: Sequence[OwnField] = ()) -> None:
        self.strict = strict
        self.rules = tuple(rule for rule in (*RULES, *own) if strict or not rule.strict)
        self.own_fields = tuple(own_fields)

    def text(self, text: str, *, is_query: bool = False) -> str:
        """Return a text without what the rules find."""
        return Redaction(self, Known()).text(text, is_query=is_query)

    def record(
        self,
        values: dict[str, Any],
        raw: bytes,
        known: Callable[[], Known | None],
        own: Own | None = None,
    ) -> dict[str, Any]:
        """Return a tool's record without what the rules find: the same object if nothing is found.

        Args:
            raw: the record as it came.
            known: returns what its events say; None if that is not known. Then personal data stays, because it may name
                who. It is called only if it matters.
            own: removes what only the tool's adapter finds.
        """
        record = record_of(raw)
        hinted = tuple(rule for rule in self.rules if rule.hint(record))
        if not hinted and own is None and not self.own_fields:
            return values
        if not self.strict and self._without(values, Known(), hinted, own, strict=False) is values:
            return values
        found = known()
        if found is None:
            hinted = tuple(rule for rule in hinted if not rule.strict)
            return self._without(values, Known(), hinted, own, strict=False)
        return self._without(values, found, hinted, own, strict=self.strict)

    def _without(
        self, values: dict[str, Any], known: Known, hinted: tuple[Rule, ...], own: Own | None, *, strict: bool
    ) -> dict[str, Any]:
        rules = self.rules if strict else tuple(rule for rule in self.rules if not rule.strict)
        clean = values if own is None else own(values, Redaction(self, known, rules, strict=strict))
        found: dict[str, Any] = (
            Redaction(self, known, hinted, strict=strict).value(clean) if hinted or self.own_fields else clean
        )
        return values if found == values else found

    def event(self, event: Event) -> Event:
        """Return an event of our own without what the rules find. The people in it are not changed."""
        record = record_of(_texts_of(event))
        if not self.own_fields and not any(rule.hint(record) for rule in self.rules):
            return event
        redaction = Redaction(self, known_of((event,)))
        text, secret, name = redaction.optional, redaction.secret, redaction.name
        changed: dict[str, Any] = {
            "reason": text(event.reason), "error": text(event.error), "ticket": secret(event.ticket),
            "entitlement": secret(event.entitlement), "grant_id": secret(event.grant_id),
            "request_id": secret(event.request_id), "session_id": secret(event.session_id),
            "customer": secret(event.customer),
        }  # fmt: skip
        if event.approvals:
            changed["approvals"] = tuple(_approval(one, text(one.reason)) for one in event.approvals)
        if event.resource is not None and (resource := name(event.resource.id)) != event.resource.id:
            changed["resource"] = replace(event.resource, id=resource)
        if (native := name(event.source.native_id)) != event.source.native_id:
            changed |= {"source": replace(event.source, native_id=native), "event_id": ""}
        if event.action is not None:
            changed["action"] = redaction.action(event.action)
        if event.raw is not None and (raw := redaction.raw(event.raw)) != event.raw:
            changed |= {"raw": raw, "raw_sha256": hashlib.sha256(raw).digest()}
        changed = {member: value for member, value in changed.items() if value != getattr(event, member)}
        return replace(event, **changed) if changed else event


@dataclass(slots=True)
class Redaction:
    """The redaction of one record.

    Attributes:
        rules: those that may find anything; None: all of the redactor.
        strict: whether the rules of the level strict are applied; None: if they are the redactor's.
    """

    redactor: Redactor
    known: Known
    rules: tuple[Rule, ...] | None = None
    strict: bool | None = None
    _variants: list[tuple[str, str]] = field(default_factory=list)
    _compared: int = 0

    def __post_init__(self) -> None:
        if self.strict is None:
            self.strict = self.redactor.strict
        if self.strict and len(self.known.queries) <= MOST_QUERIES:
            for query in self.known.queries:
                for text in dict.fromkeys((query, query.replace('"', '""'))):  # as in CSV
                    if (clean := self.text(text, is_query=True)) != text:
                        self._variants.append((text, clean))

    def text(self, text: str, *, is_query: bool = False) -> str:
        """Return a text without what the rules find. ``is_query``: it is a statement."""
        for before, after in self._variants:
            if before in text:
                text = text.replace(before, after)
            elif not is_query and len(text) > 3 and ("'" in text or "$" in text):
                self._compared += len(before)
                is_query = self._compared > MOST_COMPARED or text in before
        is_query |= len(self.known.queries) > MOST_QUERIES
        if text in self.known.who:
            return text
        return self._apply(text, is_query, personal=text not in self.known.named)

    def optional(self, text: str | None) -> str | None:
        """Return a text likewise, or None."""
        return text and self.text(text)

    def name(self, text: str) -> str:
        """Return an id or a name without secrets. Personal data stays in it."""
        return text if text in self.known.who else self._apply(text, False, personal=False)

    def secret(self, text: str | None) -> str | None:
        """Return an id or a name likewise, or None."""
        return text and self.name(text)

    def mark(self, name: str, value: Any) -> Any:
        """Return the mark of a rule in the place of a value, unless that is no secret."""
        if isinstance(value, str):
            return value if is_no_secret(value) or value in self.known.who else mark_of(name)
        if isinstance(value, list):
            return [self.mark(name, one) for one in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return mark_of(name)
        return value

    def words(self, words: Sequence[str], program: str = "") -> list[str]:
        """Return the words of a command without secrets: a secret may be the word after its option."""
        found: list[str] = []
        before = ""
        for word in words:
            program = program_of(word, program)
            place = of_word(word, before, program)
            if place is not None and not is_no_secret(word[place[0] :]) and word[place[0] :] not in self.known.who:
                found.append(word[: place[0]] + mark_of(place[1]))
            else:
                found.append(self.text(word))
            before = word
        return found

    def action(self, action: Action) -> Action:
        """Return an action without what the rules find, and marked if it lost something, now or before."""
        words = self.words((action.command, *action.args)) if action.command else self.words(action.args)
        command = words.pop(0) if action.command else action.command
        query = action.query and self.text(action.query, is_query=True)
        marked = any(MARK_START in one for one in (command, query, *words) if one)
        return replace(action, command=command, args=tuple(words), query=query, redacted=action.redacted or marked)

    def raw(self, raw: bytes) -> bytes:
        """Return the record that an event of our own contains, without what the rules find."""
        try:
            value = DECODER.decode(raw.decode())
            if isinstance(value, (dict, list)):
                clean = self.value(value)
                return raw if clean == value else json.dumps(clean, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            pass
        text = raw.decode("utf-8", "surrogateescape")
        return self.text(text).encode("utf-8", "surrogateescape")

    def value(self, value: Any) -> Any:
        """Return a JSON value without what the rules find."""
        for one in self.redactor.own_fields:
            value = self._at(value, one.path, one.name)
        return self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if depth > MOST_DEPTH:
            return mark_of(TOO_DEEP) if isinstance(value, (dict, list)) else value
        if isinstance(value, dict):
            return self._members(value, depth)
        if isinstance(value, list):
            return self._elements(value, "", depth)
        if isinstance(value, int) and value > 10**12 and is_card(digits := str(value)):
            return value if digits in self.known.named else mark_of(_CARD)
        return value

    def _members(self, values: dict[str, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in values.items():
            if (rule := rule_of_member(name)) is not None and isinstance(value, (str, list, int, float)):
                value = self.mark(rule, value)  # noqa: PLW2901
            if isinstance(value, list):
                value = self._elements(value, _program_of(values) if name != "command" else "", depth)  # noqa: PLW2901
            elif isinstance(value, (str, dict, int)):
                value = self._value(value, depth + 1)  # noqa: PLW2901
            found[self.text(name) if len(name) > 16 else name] = value
        for name in _NAME_MEMBERS:
            named = values.get(name)
            if isinstance(named, str) and (rule := rule_of_member(named)) is not None:
                found |= {one: self.mark(rule, values[one]) for one in _VALUE_MEMBERS if one in values}
        return found

    def _elements(self, values: list[Any], program: str, depth: int) -> list[Any]:
        if values and all(isinstance(one, str) for one in values):
            return self.words(values, program)
        return [self._value(one, depth + 1) for one in values]

    def _at(self, value: Any, path: tuple[str, ...], name: str) -> Any:
        """Return a value without what is at a path in it."""
        if not path:
            return mark_of(name) if isinstance(value, dict) else self.mark(name, value)
        if isinstance(value, list):
            return [self._at(one, path[1:] if path[0] == "*" else path, name) for one in value]
        if isinstance(value, dict):
            wanted = list(value) if path[0] == "*" else [path[0]] if path[0] in value else []
            return {**value, **{one: self._at(value[one], path[1:], name) for one in wanted}}
        return value

    def _apply(self, text: str, is_query: bool, *, personal: bool) -> str:
        for _ in range(_MOST_PASSES):
            before, lower = text, text.lower()
            for rule in self.redactor.rules if self.rules is None else self.rules:
                if (rule.personal and not personal) or (rule.sql and not is_query):
                    continue
                if not rule.needles or any(needle in lower for needle in rule.needles):
                    text = self._without(text, rule, rule.find(text))
            if text == before:
                break
        return text

    def _without(self, text: str, rule: Rule, spans: Iterable[Span]) -> str:
        pieces: list[str] = []
        place = 0
        left = self.known.named if rule.personal else self.known.who
        for begin, end in sorted(spans):
            secret = text[max(begin, place) : end]
            if is_no_secret(secret) or secret in left:
                continue
            pieces += text[place : max(begin, place)], mark_of(rule.name)
            place = max(end, place)
        return "".join((*pieces, text[place:])) if pieces else text


def _program_of(values: dict[str, Any]) -> str:
    """Return the name of the program of which an object has the arguments, or an empty text."""
    for name in _PROGRAM_MEMBERS:
        command = values.get(name)
        if isinstance(command, list) and command:
            command = command[0]
        if isinstance(command, str):
            return command.rpartition("/")[2][:40]
    return ""


def _texts_of(event: Event) -> bytes:
    """Return everything that redaction may change in an event, with quotes around each text as in JSON."""
    action, resource = event.action, event.resource
    texts = [
        event.reason, event.error, event.ticket, event.entitlement, event.grant_id, event.request_id, event.session_id,
        event.customer, event.source.native_id, resource.id if resource is not None else None,
        *(one.reason for one in event.approvals),
    ]  # fmt: skip
    if action is not None:
        texts += action.command, *action.args, action.query
    joined = '","'.join(text for text in texts if text)
    return f'"{joined}"'.encode("utf-8", "replace") + (event.raw or b"")


def _approval(approval: Approval, reason: str | None) -> Approval:
    return approval if reason == approval.reason else replace(approval, reason=reason)


__all__ = ["LEVELS", "SQL_PARAMETERS", "Known", "Level", "OwnField", "Redaction", "Redactor", "known_of"]
