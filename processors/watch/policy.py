"""What is allowed, per resource, entitlement, environment and source: a TOML file, typed and checked."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...base.toml import load_toml
from .facts import Access, Source

SECOND = 1_000_000
"""Microseconds."""

Rule = Literal[
    "overdue",
    "session_outlived_grant",
    "no_deadline",
    "no_approval",
    "self_approved",
    "extended_beyond_policy",
    "used_without_grant",
    "removal_unconfirmed",
    "clock_skew",
    "source_silent",
    "sequence_gap",
    "event_conflict",
]
Severity = Literal["info", "warning", "critical"]
Revoke = Literal["auto", "never", "deadline", "overdue"]
Evidence = Literal["none", "deadline", "api_accepted", "confirmed"]
SEVERITIES: dict[Rule, Severity] = {
    "overdue": "critical",
    "session_outlived_grant": "critical",
    "no_deadline": "warning",
    "no_approval": "critical",
    "self_approved": "critical",
    "extended_beyond_policy": "warning",
    "used_without_grant": "critical",
    "removal_unconfirmed": "warning",
    "clock_skew": "warning",
    "source_silent": "warning",
    "sequence_gap": "critical",
    "event_conflict": "critical",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Strict):
    """What holds for one access. Times in seconds."""

    grace_seconds: float = Field(
        default=60, ge=0, description="How long after the deadline a removal is still on time."
    )
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Longest access, extensions included. Where a grant says no deadline, it gives one.",
    )
    approvals: int = Field(default=0, ge=0, description="How many others must have approved.")
    approval_wait_seconds: float = Field(
        default=60, ge=0, description="How long after activation an approval may arrive."
    )
    removal: frozenset[Evidence] = Field(
        default=frozenset({"confirmed"}),
        description="Evidence that counts as removal. `deadline`: the credential ends by itself when its time is up.",
    )
    confirm_wait_seconds: float = Field(default=900, ge=0, description="How long a removal may stay unconfirmed.")
    sessions_need_grant: bool = Field(default=False, description="Whether a session that names no grant is a finding.")
    revoke: Revoke = Field(
        default="auto",
        description="When enforcers are told to take the access away: `deadline`, as soon as that has passed; "
        "`overdue`, when the grace has too; `never`; `auto`: `overdue` where the tool itself ends the access, else "
        "`deadline`.",
    )


class Override(_Strict):
    """Limits for some accesses. Patterns are shell-style, ``*`` and ``?``; what is not named stays as it is."""

    tenant: str = "*"
    source: str = "*"
    instance: str = "*"
    resource_kind: str = "*"
    resource: str = "*"
    environment: str = "*"
    entitlement: str = "*"
    grace_seconds: float | None = Field(default=None, ge=0)
    max_seconds: float | None = Field(default=None, gt=0)
    approvals: int | None = Field(default=None, ge=0)
    approval_wait_seconds: float | None = Field(default=None, ge=0)
    removal: frozenset[Evidence] | None = None
    confirm_wait_seconds: float | None = Field(default=None, ge=0)
    sessions_need_grant: bool | None = None
    revoke: Revoke | None = None

    def fits(self, source: Source, access: Access | None, environment: str) -> bool:
        """Whether it is about this access."""
        return (
            fnmatchcase(source.system, self.source)
            and fnmatchcase(source.instance, self.instance)
            and fnmatchcase(environment, self.environment)
            and fnmatchcase(access.tenant if access else "", self.tenant)
            and fnmatchcase(access.resource_kind if access else "", self.resource_kind)
            and fnmatchcase(access.resource if access else "", self.resource)
            and fnmatchcase(access.entitlement if access else "", self.entitlement)
        )


class SourceLimits(_Strict):
    """What holds for the sources that fit."""

    system: str = "*"
    instance: str = "*"
    silent_after_seconds: float | None = Field(default=None, gt=0, description="Longest silence that is normal.")
    clock_skew_seconds: float = Field(default=300, ge=0, description="How far a source's clock may be ahead.")
    gap_wait_seconds: float = Field(
        default=60, ge=0, description="How long a counter's missing number may be on its way."
    )

    def fits(self, source: Source) -> bool:
        """Whether it is about this source."""
        return fnmatchcase(source.system, self.system) and fnmatchcase(source.instance, self.instance)


class Policy(_Strict):
    """The whole policy. Overrides apply in order, later ones last."""

    default: Limits = Limits()
    rule: tuple[Override, ...] = ()
    source: tuple[SourceLimits, ...] = ()
    severity: dict[Rule, Severity] = {}


CERTIFICATES = Override(source="teleport", removal=frozenset({"confirmed", "deadline"}))
"""Teleport's access is a certificate with an end of its own, and Teleport writes nothing when it comes."""
DEFAULT = Policy(rule=(CERTIFICATES,))


class Judge:
    """Looks up what holds, and remembers it: a million grants have few kinds of access."""

    def __init__(self, policy: Policy = DEFAULT) -> None:
        self.policy = policy
        self._limits: dict[tuple[Source, tuple[str, ...] | None, str], Limits] = {}
        self._sources: dict[Source, SourceLimits] = {}

    def limits(self, source: Source, access: Access | None, environment: str) -> Limits:
        """Return what holds for an access, whoever holds it."""
        # Everything but the subject; None is a resource that nobody named.
        about = (source, access and (access[0], access[2], access[3], access[4]), environment)
        limits = self._limits.get(about)
        if limits is None:
            found = self.policy.default.model_dump()
            for one in self.policy.rule:
                if one.fits(source, access, environment):
                    own = one.model_dump(include=set(found), exclude_none=True)
                    found |= own
            limits = self._limits[about] = Limits.model_validate(found)
        return limits

    def source(self, source: Source) -> SourceLimits:
        """Return what holds for a source: the last entry that fits."""
        if source not in self._sources:
            fitting = [one for one in self.policy.source if one.fits(source)]
            self._sources[source] = fitting[-1] if fitting else SourceLimits()
        return self._sources[source]

    def severity(self, rule: Rule) -> Severity:
        """Return how bad a finding of a rule is."""
        return self.policy.severity.get(rule, SEVERITIES[rule])


def read_policy(path: Path) -> Policy:
    """Read a policy file. Its rules come after the built-in one for certificates, so they can take it back.

    Raises:
        ConfigError: the file is missing, is not TOML, or has wrong keys.
    """
    found = load_toml(path, Policy)
    return found.model_copy(update={"rule": (CERTIFICATES, *found.rule)})
