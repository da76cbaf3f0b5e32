"""The model of a mapping file. Every mistake in it is found when the file is read, with its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from ....schemas.event import ACCESS_TYPES
from ....schemas.own_sources import PREFIX
from ....schemas.rules import ALLOWED, DECISIONS, REQUIRED
from .expressions import EvaluationError, Expression, checked, holds

MAX_RULES = 500
UNIX_UNITS = {"unix": 1_000_000, "unix_ms": 1_000, "unix_us": 1, "unix_ns": 0.001}
"""Microseconds per unit of the times that are numbers."""
RFC_3339 = "rfc3339"
REMOVALS = ("grant.revoked", "grant.expired")
_COMPUTED = frozenset({"expiry_source", "raw"})
_CONFIG = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Constant(BaseModel):
    """A value out of the record (``path``), or a constant (``value``)."""

    model_config = _CONFIG

    path: Expression | None = None
    value: str | int | bool | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.path is None) == (self.value is None) and not (self.value is None and self._has_parts):
            raise ValueError("give path, an expression, or value, a constant")
        return self

    @property
    def _has_parts(self) -> bool:
        return False


class TextValue(Constant):
    """A text. ``lookup`` names the table that translates it; ``default`` is used if there is no value or no entry."""

    value: str | None = None
    lookup: str | None = None
    default: str | None = None


class IdValue(TextValue):
    """An id: the tool's own, or else one that is made from the values of ``of`` and marked as synthesized."""

    synthesized: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")] | None = None
    of: tuple[Expression, ...] = ()

    @property
    def _has_parts(self) -> bool:
        return self.synthesized is not None

    @model_validator(mode="after")
    def _names_parts(self) -> Self:
        if (self.synthesized is None) == bool(self.of):
            raise ValueError("synthesized and of belong together: a name, and the values that identify it")
        return self


def _is_format(name: str) -> str:
    if name != RFC_3339 and name not in UNIX_UNITS:
        if "%" not in name:
            known = ", ".join((RFC_3339, *UNIX_UNITS))
            raise ValueError(f"is not one of {known}, and no pattern such as %Y-%m-%d %H:%M:%S")
        try:
            datetime.strptime("", name)
        except ValueError as error:
            if "bad directive" in str(error) or "stray %" in str(error):
                raise ValueError(str(error)) from None
    return name


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError("is not the name of a time zone, such as UTC or Europe/Berlin") from None
    return name


class TimeValue(BaseModel):
    """A time. ``format`` may name several, the first that fits counts. ``zone`` is for times that name none."""

    model_config = _CONFIG

    path: Expression
    format: Annotated[
        tuple[Annotated[str, AfterValidator(_is_format)], ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    ] = (RFC_3339,)
    zone: Annotated[str, AfterValidator(_is_zone)] | None = None
    nanoseconds: Expression | None = None

    @model_validator(mode="after")
    def _has_format(self) -> Self:
        if not self.format:
            raise ValueError("format must not be empty")
        return self


def _shorthand(given: Any) -> Any:
    """Return the table that a text stands for: an expression."""
    return {"path": checked(given)} if isinstance(given, str) else given


Text = Annotated[TextValue, BeforeValidator(_shorthand)] | None
Id = Annotated[IdValue, BeforeValidator(_shorthand)] | None
Time = Annotated[TimeValue, BeforeValidator(_shorthand)] | None
Other = Annotated[Constant, BeforeValidator(_shorthand)] | None


class _Table(BaseModel):
    model_config = _CONFIG

    def flat(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield every given value with its dotted name."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Table):
                yield from value.flat(f"{prefix}{name}.")
            elif value is not None and value != ():
                yield prefix + name, value


class SubjectFields(_Table):
    """Who holds the access."""

    id: Text = None
    kind: Text = None
    email: Text = None


class ActorFields(_Table):
    """Who caused the event."""

    id: Text = None
    kind: Text = None
    on_behalf_of: Text = None


class ResourceFields(_Table):
    """What the access is to."""

    kind: Text = None
    id: Text = None
    environment: Text = None


class IssuerFields(_Table):
    """The source that issued an id."""

    system: Text = None
    instance: Text = None


class ActionFields(_Table):
    """What was done in a session. ``args`` is a list of texts."""

    command: Text = None
    args: Other = None
    query: Text = None
    exit_code: Other = None
    redacted: Other = None
    truncated: Other = None


class ApprovalFields(_Table):
    """A decision, or one for each element of ``each``."""

    each: Expression | None = None
    reviewer: Text = None
    group: Text = None
    decision: Text = None
    at: Time = None
    reason: Text = None
    forced: Other = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.reviewer is None or self.decision is None:
            raise ValueError("an approval needs reviewer and decision")
        return self


class EventFields(_Table):
    """The fields of an event, by their names in ``event.avsc``."""

    native_id: Text = None
    native_type: Text = None
    instance: Text = None
    occurred_at: Time = None
    subject: SubjectFields | None = None
    actor: ActorFields | None = None
    resource: ResourceFields | None = None
    entitlement: Text = None
    grant_id: Id = None
    grant_id_kind: Text = None
    request_id: Id = None
    session_id: Id = None
    grant_source: IssuerFields | None = None
    request_source: IssuerFields | None = None
    session_source: IssuerFields | None = None
    approvals: tuple[ApprovalFields, ...] = ()
    starts_at: Time = None
    expires_at: Time = None
    expires_after_seconds: Other = None
    requested_seconds: Other = None
    expiry_source: Text = None
    ends_by_itself: Other = None
    removal_evidence: Text = None
    reason: Text = None
    ticket: Text = None
    customer: Text = None
    outcome: Text = None
    error: Text = None
    client_ip: Text = None
    action: ActionFields | None = None


def _are_allowed(fields: EventFields, info: ValidationInfo) -> EventFields:
    """Check the lookups and the constants of fields; they may be those of a rule."""
    problems = list(_wrong_values(dict(fields.flat()), info.data.get("lookup")))
    if problems:
        raise ValueError("; ".join(problems))
    return fields


def _wrong_values(values: Mapping[str, Any], lookups: Mapping[str, Mapping[str, str]] | None) -> Iterator[str]:
    if lookups is None:  # they have mistakes themselves
        return
    for approval in values.get("approvals", ()):
        yield from _wrong_values({f"approvals.{name}": one for name, one in approval.flat()}, lookups)
    for name, value in values.items():
        if not isinstance(value, TextValue):
            continue
        if value.lookup is not None and value.lookup not in lookups:
            near = _similar(value.lookup, lookups)
            yield f"{name}: there is no table lookup.{value.lookup}{near}"
            continue
        allowed = DECISIONS if name == "approvals.decision" else ALLOWED.get(name)
        if allowed is None:
            continue
        given = {value.default, *(lookups[value.lookup].values() if value.lookup else (value.value,))} - {None}
        for one in sorted(given - set(allowed)):
            yield f"{name}: {one!r} is not one of {', '.join(sorted(allowed))}"


def _is_event_type(name: str) -> str:
    if name not in ACCESS_TYPES:
        raise ValueError(f"{name!r} is not a type of event{_similar(name, ACCESS_TYPES)}")
    return name


class Rule(BaseModel):
    """What becomes of the records for which ``when`` is true: an event, or a reason to skip them."""

    model_config = _CONFIG

    name: str = ""
    when: Expression | None = None
    skip: str | None = None
    event: Annotated[str, AfterValidator(_is_event_type)] | None = None
    also: bool = False
    each: Expression | None = None
    fields: EventFields = EventFields()

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.skip is None) == (self.event is None):
            raise ValueError("give either event, a type, or skip, a reason")
        if self.skip is not None and (self.also or self.each or any(True for _ in self.fields.flat())):
            raise ValueError("a rule that skips has no also, each or fields")
        return self


def _is_complete(rule: Rule, info: ValidationInfo) -> Rule:
    """Check a rule against the rest of the file."""
    problems: list[str] = []
    reasons = info.data.get("skip_reason")
    if rule.skip is not None and reasons is not None and rule.skip not in reasons:
        problems.append(f"skip: there is no skip_reason.{rule.skip}{_similar(rule.skip, reasons)}")
    own = dict(rule.fields.flat())
    problems += _wrong_values(own, info.data.get("lookup"))
    if rule.event is not None and "fields" in info.data:
        given = dict(info.data["fields"].flat()) | own
        missing = [name for name in _needed(rule.event) if not _has(given, name)]
        if rule.event in REMOVALS and "outcome" not in given:
            problems.append(f"{rule.event} needs outcome: only a removal with the outcome success can be confirmed")
        if missing:
            problems.append(f"{rule.event} needs {', '.join(missing)}")
    if problems:
        raise ValueError("; ".join(problems))
    return rule


def _needed(event_type: str) -> Iterator[str]:
    yield from ("occurred_at", "subject.id")
    for name, types in REQUIRED.items():
        if event_type in types and name not in _COMPUTED:
            yield from ("resource.kind", "resource.id") if name == "resource" else (name,)


def _has(given: Mapping[str, Any], name: str) -> bool:
    return name in given or any(one.startswith(f"{name}.") for one in given)


def _is_selective(expression: str) -> str:
    try:
        everything = holds(expression, {})
    except EvaluationError as error:
        raise ValueError(f"fails for an object without members: {error}") from None
    if everything:
        raise ValueError("is true for an object without members, so it is true for the records of other tools")
    return expression


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
Sentence = Annotated[str, Field(min_length=1, max_length=500)]


class MappingFile(BaseModel):
    """A whole mapping file."""

    model_config = _CONFIG

    system: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,49}$")
    version: Annotated[str, Field(min_length=1, max_length=50)]
    covers: tuple[Sentence, ...] = ()
    does_not_say: tuple[Sentence, ...] = ()
    recognise: Annotated[Expression, AfterValidator(_is_selective)]
    define: dict[Name, Expression] = Field(default_factory=dict)
    lookup: dict[Name, dict[str, str]] = Field(default_factory=dict)
    skip_reason: dict[Name, Sentence] = Field(default_factory=dict)
    fields: Annotated[EventFields, AfterValidator(_are_allowed)] = EventFields()
    rule: Annotated[
        tuple[Annotated[Rule, AfterValidator(_is_complete)], ...], Field(min_length=1, max_length=MAX_RULES)
    ]

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        if self.system.startswith(PREFIX):
            raise ValueError(f"system: names that begin with {PREFIX} are those of the pipeline's own sources")
        for number, rule in enumerate(self.rule[:-1], 1):
            if rule.when is None and not rule.also:
                raise ValueError(f"rule {number} has no when, so the rules after it are never reached")
        return self


def _similar(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
