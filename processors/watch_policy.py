"""The watch policy: what is allowed per resource, entitlement, environment and source. Read from a TOML file."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ..base.toml import load_toml
from ..schemas.access_key import SourceName
from ..schemas.finding_rules import FINDING_RULES, Severity
from ..schemas.instance_names import InstanceNames
from ..schemas.own_sources import ENFORCER
from .access import NEVER, Access, Source, in_micros
from .naming import Environment, Installation, Naming, Person, Strict, contradictions, matches_pattern

Revoke = Literal["auto", "never", "deadline", "overdue"]
Evidence = Literal["none", "deadline", "api_accepted", "confirmed"]
ReporterRight = Literal["remove", "extend", "approve"]
MOST_BYTES = 1 << 20
"""Size of the policy as JSON: it is one record, and the views of the store read it in each query."""
MOST_REMEMBERED = 10_000
"""Sources, and pairs of them, that are remembered: anyone can send events in the name of new sources."""
WATCH_RULES = frozenset(rule.name for rule in FINDING_RULES.values() if rule.process == "watch")
POLICY_RULES = WATCH_RULES | {"sequence_gap", "source_never_heard"}
"""The rules whose severity the policy may set."""


def _policy_rule(name: str) -> str:
    if name not in POLICY_RULES:
        raise ValueError("is not a rule whose severity the policy can set")
    return name


RuleName = Annotated[str, AfterValidator(_policy_rule)]


# The policy is put on record as JSON. A set has another order in each process.
InOrder = PlainSerializer(sorted, return_type=list[str])


class AccessLimits(Strict):
    """The limits of one access; docs/watch.md explains them. Times in seconds."""

    grace_seconds: float = Field(default=60, ge=0)
    max_seconds: float | None = Field(default=None, gt=0)
    """Longest access, extensions included. It sets the deadline of grants that have none."""
    approvals: int = Field(default=0, ge=0)
    """How many other people must have approved."""
    approval_wait_seconds: float = Field(default=60, ge=0)
    removal: Annotated[frozenset[Evidence], InOrder] = frozenset({"confirmed"})
    """Evidence that counts as removal. ``deadline``: the credential stops working at its deadline."""
    ends_by_itself: bool = False
    """Whether a passed deadline counts as removal where the event itself says that the credential stops working."""
    confirm_wait_seconds: float = Field(default=900, ge=0)
    sessions_need_grant: bool = False
    """Whether a session that names no grant is a finding."""
    revoke: Revoke = "auto"
    """When to ask enforcers. ``auto``: ``overdue`` if the tool itself ends the access, else ``deadline``."""


class GrantLimits(AccessLimits):
    """The limits of one access, with what the policy has about its source and about history."""

    delivery_seconds: float = 0
    """How long the records of the sources that may report its end take to arrive."""
    history_after_seconds: float = 3600

    def overdue_after(self, deadline: int, reported: int) -> int:
        """Return the last moment at which a removal is on time. Access that was reported late counts from then.

        Args:
            deadline: in microseconds since 1970, like all times here, or ``NEVER``.
            reported: append time of the event that set the deadline.
        """
        if deadline >= NEVER:
            return NEVER
        return self.with_grace(max(deadline + in_micros(self.delivery_seconds), reported))

    def longest_end(self, begin: int) -> int:
        """Return when access that began at a time must end at the latest, by ``max_seconds``; ``NEVER`` without it."""
        return NEVER if self.max_seconds is None else begin + in_micros(self.max_seconds)

    def with_grace(self, time: int) -> int:
        """Return a time plus the grace."""
        return NEVER if time >= NEVER else time + in_micros(self.grace_seconds)


class PolicyEntry(Strict):
    """An entry of a list in which later entries win."""

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the entry does not limit, so that the policy on record means the same."""
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}


class AccessRule(AccessLimits, PolicyEntry):
    """Limits for matching accesses. Patterns use ``*`` and ``?``; only the limits that are set apply."""

    tenant: str = "*"
    source: str = "*"
    instance: str = "*"
    resource_kind: str = "*"
    resource: str = "*"
    environment: str = "*"
    entitlement: str = "*"

    def matches(self, source: Source, access: Access | None, environment: str) -> bool:
        """Whether the rule applies to an access."""
        access = access or Access("", "", "", "", "")
        pairs = (
            (access.tenant, self.tenant), (source.system, self.source), (source.instance, self.instance),
            (access.resource_kind, self.resource_kind), (access.resource, self.resource),
            (environment, self.environment), (access.entitlement, self.entitlement),
        )  # fmt: skip
        return all(matches_pattern(value, pattern) for value, pattern in pairs)


class SourceLimits(PolicyEntry):
    """The limits of matching sources."""

    system: str = "*"
    instance: str = "*"
    silent_after_seconds: float | None = Field(default=None, gt=0)
    """Longest normal silence; without it, none is too long."""
    heard_within_seconds: float = Field(default=86_400, ge=0)
    """How long after it was added its first event may arrive; 0: whenever it comes."""
    clock_skew_seconds: float = Field(default=300, ge=0)
    gap_wait_seconds: float = Field(default=60, ge=0)
    """How long a missing number of the sequence may be late."""
    delivery_seconds: float = Field(default=0, ge=0)
    """How long its records normally take to arrive."""

    def matches(self, source: Source) -> bool:
        """Whether the limits apply to a source."""
        return matches_pattern(source.system, self.system) and matches_pattern(source.instance, self.instance)


class Reporter(Strict):
    """A source that may report about the grants and requests of another one. Patterns use ``*`` and ``?``."""

    system: str
    instance: str = "*"
    source: str
    """The system whose grants and requests it may report about."""
    source_instance: str = "*"
    may: Annotated[frozenset[ReporterRight], InOrder] = frozenset({"remove"})

    def matches(self, source: Source, issuer: SourceName) -> bool:
        """Whether this is about events of a source about the ids of another one."""
        pairs = ((source.system, self.system), (source.instance, self.instance))
        return all(matches_pattern(value, pattern) for value, pattern in pairs) and self.is_about(issuer)

    def is_about(self, issuer: SourceName) -> bool:
        """Whether this is about the ids of a source."""
        pairs = ((issuer[0], self.source), (issuer[1], self.source_instance))
        return all(matches_pattern(value, pattern) for value, pattern in pairs)


TICKET = r"\b[A-Z][A-Z0-9]+-[0-9]+\b"
"""The default of ``ticket_pattern``."""


def _pattern(text: str) -> str:
    """Check a regular expression as ClickHouse does, which uses the same library as Arrow."""
    if text == TICKET:
        return text
    import pyarrow as pa  # takes a while, and most policies have the default
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), text)
    except pa.ArrowInvalid as error:
        raise ValueError(f"is not a regular expression of RE2: {error}") from error
    return text


KNOWN_DELAYS = (SourceLimits(system="cloudtrail", delivery_seconds=900),)
"""AWS delivers most records of CloudTrail within 15 minutes."""


class WatchPolicy(Strict):
    """The whole policy. Rules apply in order; later ones win."""

    default: AccessLimits = AccessLimits()
    history_after_seconds: float = Field(default=3600, ge=0)
    """A grant is historical if nothing of it was received until so long after its deadline."""
    lookups_per_minute: float = Field(default=60, ge=0)
    """How many historical grants per minute enforcers are asked to look up. 0: none."""
    ticket_pattern: Annotated[str, Field(max_length=1000), AfterValidator(_pattern)] = TICKET
    """Finds the ticket in a reason, for events that name none. Empty: no ticket is taken from reasons."""
    installation: tuple[Installation, ...] = ()
    person: tuple[Person, ...] = ()
    environment: tuple[Environment, ...] = ()
    rule: tuple[AccessRule, ...] = ()
    source: tuple[SourceLimits, ...] = KNOWN_DELAYS
    reporter: tuple[Reporter, ...] = ()
    severity: dict[RuleName, Severity] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_meaning_each(self) -> WatchPolicy:
        problems = list(contradictions(self.installation, self.person))
        if any(one.delivery_seconds > self.history_after_seconds for one in self.source if one not in KNOWN_DELAYS):
            problems.append("delivery_seconds of a source is longer than history_after_seconds")
        if problems:
            raise ValueError("; ".join(problems))
        size = len(self.model_dump_json())
        if size > MOST_BYTES:
            raise ValueError(f"the policy has {size} bytes as JSON; at most {MOST_BYTES} go on record")
        return self

    @cached_property
    def naming(self) -> Naming:
        """The names of installations, people and environments."""
        return Naming(self.installation, self.person, self.environment)

    @property
    def names(self) -> InstanceNames:
        """The other names of installations."""
        return self.naming.installations


BUILT_IN = WatchPolicy(
    rule=tuple(
        AccessRule(source=system, ends_by_itself=True) for system in ("cloudtrail", "kubernetes", "teleport", "vault")
    )
)
"""Believes the tools whose adapters mark credentials that stop working without a record, and record every renewal."""


class EffectivePolicy:
    """What a policy means for each access and source, with a cache: a million grants have few kinds of access.

    ``stated``: the policy as it is written.
    """

    def __init__(self, policy: WatchPolicy = BUILT_IN) -> None:
        self.stated = policy
        self._limits: dict[tuple[Source, tuple[str, ...] | None, str], GrantLimits] = {}
        self._sources: dict[Source, SourceLimits] = {}
        self._reports: dict[tuple[Source, SourceName], frozenset[ReporterRight]] = {}

    def limits(self, source: Source, access: Access | None, environment: str) -> GrantLimits:
        """Return the limits of an access, whoever has it."""
        # Everything except the subject; None if no event names the resource.
        key = (source, access and (access[0], access[2], access[3], access[4]), environment)
        limits = self._limits.get(key)
        if limits is None:
            values = self.stated.default.model_dump()
            for rule in self.stated.rule:
                if rule.matches(source, access, environment):
                    values |= rule.model_dump(include=set(values), exclude_unset=True)
            values |= {"delivery_seconds": self._delivery(source)}
            values |= {"history_after_seconds": self.stated.history_after_seconds}
            limits = self._limits[key] = GrantLimits.model_validate(values)
        return limits

    def _delivery(self, source: Source) -> float:
        """Return how long a report of the end of a grant may take, from its source or from one that may remove it."""
        others = (one for one in self.stated.reporter if "remove" in one.may)
        named = (Source(one.system, one.instance) for one in others if one.is_about(source))
        return max(self.source_limits(one).delivery_seconds for one in (source, *named))

    def source_limits(self, source: Source) -> SourceLimits:
        """Return the limits of a source. Entries apply in order; later ones win."""
        found = self._sources.get(source)
        if found is None:
            values: dict[str, Any] = {}
            for one in self.stated.source:
                if one.matches(source):
                    values |= one.model_dump(exclude_unset=True)
            found = SourceLimits.model_validate(values)
            if len(self._sources) < MOST_REMEMBERED:
                self._sources[source] = found
        return found

    def reports(self, source: Source, issuer: SourceName) -> frozenset[ReporterRight]:
        """Return what a source may report about the grants and requests that another one issued."""
        found = self._reports.get((source, issuer))
        if found is None:
            found = frozenset(what for one in self.stated.reporter if one.matches(source, issuer) for what in one.may)
            if source.system == ENFORCER:
                found |= {"remove"}
            if len(self._reports) < MOST_REMEMBERED:
                self._reports[source, issuer] = found
        return found

    def severity(self, rule: str) -> Severity:
        """Return the severity of a finding rule."""
        return self.stated.severity.get(rule, FINDING_RULES[rule].severity)


def load_policy(path: Path | None) -> WatchPolicy:
    """Read a policy file after the built-in rules, which it can override; without one, return the built-in policy."""
    if path is None:
        return BUILT_IN
    found = load_toml(path, WatchPolicy)
    source = (*KNOWN_DELAYS, *(one for one in found.source if one not in KNOWN_DELAYS))
    return found.model_copy(update={"rule": (*BUILT_IN.rule, *found.rule), "source": source})
