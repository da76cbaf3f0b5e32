"""What truly happened in simulated lives, from the plans of their records and the times at which these arrived.

Nothing of the store, of the watch or of the adapters is used here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from grantledger.simulator.lifecycle import Ending, StepKind
from grantledger.simulator.records.teleport import ACCESS_LIST, TeleportWriter

from .expected import RecordTimes, Trace

HISTORY_AFTER = timedelta(hours=1)
PORTAL_SECONDS = 3600
SANDBOX_SECONDS = 300


@dataclass(frozen=True)
class GrantedAccess:
    """One grant that was activated. Times by the clock of its tool, except ``recorded``, by the broker's.

    Attributes:
        key: the access key, where the truth knows it.
        removed: the end of the access, if it is proved.
        recorded: when the broker had the proof.
        historical: nothing of it arrived until long after its end.
    """

    person: str
    subject: str
    resource: str
    entitlement: str
    system: str
    activated: datetime
    deadline: datetime | None = None
    removed: datetime | None = None
    recorded: datetime | None = None
    evidence: str = "none"
    key: str = ""
    environment: str = ""
    reason: str = ""
    ticket: str = ""
    approvers: tuple[str, ...] = ()
    forced: bool = False
    kind: str = "human"
    commands: int = 0
    historical: bool = False

    @property
    def ended(self) -> datetime | None:
        """When it ended, by a proof or under the policy of the simulated company; None while it lasts."""
        if self.removed is not None:
            return self.removed
        if self.system == "vault" and "/" not in self.resource:  # a token
            return self.deadline
        if self.resource.startswith("sandbox-") and self.evidence == "api_accepted":
            return self.activated + timedelta(seconds=SANDBOX_SECONDS)
        return None

    @property
    def late(self) -> float | None:
        """Seconds from the deadline to the time at which the removal was known."""
        if self.removed is None or self.recorded is None or self.deadline is None:
            return None
        known = min(self.removed, self.recorded) if self.historical else self.recorded
        return max(0.0, (known - self.deadline).total_seconds())


class RejectedRequest(NamedTuple):
    """A request that somebody rejected."""

    requested: datetime
    by: str
    resource: str
    entitlement: str
    reason: str
    approvals: str
    system: str


class Happening(NamedTuple):
    """Something else that happened: a session, a command, an erasure, a change."""

    at: datetime
    what: str
    who: str
    resource: str = ""
    session: str = ""
    reason: str = ""


@dataclass
class Truth:
    """Everything that happened."""

    accesses: list[GrantedAccess] = field(default_factory=list)
    rejected: list[RejectedRequest] = field(default_factory=list)
    loose_sessions: list[Happening] = field(default_factory=list)
    actions: list[Happening] = field(default_factory=list)
    erased: list[Happening] = field(default_factory=list)
    changes: list[Happening] = field(default_factory=list)

    def __add__(self, other: Truth) -> Truth:
        return Truth(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


_GIVES: dict[str, tuple[tuple[StepKind, ...], ...]] = {
    "teleport": ((StepKind.GRANTED, StepKind.RENEWED),),
    "hoop": ((StepKind.GRANTED,),),
    "emit": ((StepKind.GRANTED, StepKind.RENEWED),),
    "vault": ((StepKind.GRANTED, StepKind.RENEWED), (StepKind.LEASED, StepKind.LEASE_RENEWED)),
    "cloudtrail": ((StepKind.GRANTED,), (StepKind.ROLE_FETCHED,)),
}
"""By tool, the steps that give each access of a lifecycle: the one that gives it, and the one that renews it."""
_REMOVES: dict[StepKind, tuple[StepKind, ...]] = {
    StepKind.GRANTED: (StepKind.REVOKED, StepKind.EXPIRED),
    StepKind.LEASED: (StepKind.LEASE_REVOKED, StepKind.REVOKED),  # the end of a token ends its leases
    StepKind.ROLE_FETCHED: (),
}
"""The steps by which the tool itself reports an end, by the step that gives the access."""


def truth_of(traces: Iterable[Trace]) -> Truth:
    """Return what happened in simulated lives."""
    truth, parts = Truth(), defaultdict[str, list[tuple[Trace, tuple[StepKind, ...]]]](list)
    for trace in traces:
        for steps in _GIVES[trace.writer.lifecycle.tool]:
            if trace.find(steps[0]):
                key = trace.lease if steps[0] is StepKind.LEASED else trace.key
                parts[f"{trace.session} portal" if steps[0] is StepKind.ROLE_FETCHED else key].append((trace, steps))
        truth.rejected += _rejected(trace)
        truth.loose_sessions += _portal_sessions(trace)
        truth.actions += _statements(trace)
        truth.changes += _locks(trace)
    truth.accesses += [_access(key, given) for key, given in parts.items()]
    return truth


def other_names(trace: Trace) -> set[str]:
    """Return the names, other than the address, under which the tools know the person of a lifecycle."""
    return {access.subject for access in truth_of([trace]).accesses} - {trace.writer.lifecycle.person.email}


def _access(key: str, parts: Sequence[tuple[Trace, tuple[StepKind, ...]]]) -> GrantedAccess:
    """Return one access, which several lifecycles may have given one after the other."""
    (trace, steps), lifecycle = parts[0], parts[0][0].writer.lifecycle
    portal, checked = steps[0] is StepKind.ROLE_FETCHED, _check(steps[0])
    records = sorted((one for part, _ in parts for one in part.records), key=lambda one: one.append)
    given = [one for one in records if one.kind in steps]
    latest, about = given[-1], trace.writer.grant(checked)
    ends = [one for one in records if one.kind in _REMOVES[steps[0]]]
    reported = [one for one in ends if one.append >= latest.append or one.occurred > latest.occurred]
    proof = next((one for one in records if one.kind is checked and one.append >= latest.append and not portal), None)
    deadline = _deadline(trace, steps, given)
    by_itself = portal or (lifecycle.tool == "teleport") or lifecycle.target.kind == "role"
    if by_itself:  # the deadlines of the lives are in the past
        removed = recorded = deadline
    else:
        removed, recorded = (_time(proof.occurred), _time(proof.append)) if proof else (None, None)
    if proof:
        evidence = "confirmed"
    elif any(one.kind is not StepKind.EXPIRED and not _refused(trace, one.kind) for one in reported):
        evidence = "api_accepted"
    else:
        evidence = "deadline" if by_itself else "none"
    return GrantedAccess(
        lifecycle.person.email,
        lifecycle.person.email if portal else about.subject,
        about.resource.id,
        _entitlement(trace, about.entitlement, portal=portal),
        trace.writer.source[0],
        _time(min(given, key=lambda one: one.append).occurred),
        deadline,
        removed,
        recorded,
        evidence,
        "" if portal else key,
        _environment(trace),
        f"{lifecycle.ticket}: {lifecycle.reason}" if lifecycle.tool == "teleport" else "",
        lifecycle.ticket if lifecycle.tool in ("teleport", "emit") else "",
        _approvers(trace),
        historical=deadline is not None and _time(given[0].append) > deadline + HISTORY_AFTER,
    )


def _check(gives: StepKind) -> StepKind:
    return StepKind.LEASE_CHECKED if gives is StepKind.LEASED else StepKind.CHECKED


def _refused(trace: Trace, kind: StepKind) -> bool:
    """Return whether the tool could not execute a revocation: then the step has the error as its detail."""
    return kind is StepKind.LEASE_REVOKED and any(
        step.kind is kind and step.detail for step in trace.writer.lifecycle.steps
    )


def _deadline(trace: Trace, steps: tuple[StepKind, ...], given: Sequence[RecordTimes]) -> datetime | None:
    """Return when the access must end, by the broker's clock: a fast clock of the tool lengthens nothing."""
    first, latest, lifecycle = given[0], given[-1], trace.writer.lifecycle
    if steps[0] is StepKind.LEASED or (lifecycle.target.kind == "assignment" and steps[0] is StepKind.GRANTED):
        return None
    if steps[0] is StepKind.ROLE_FETCHED:
        return _time(latest.occurred - latest.ahead) + timedelta(seconds=PORTAL_SECONDS)
    if latest.kind is StepKind.RENEWED and lifecycle.tool == "vault":
        ends = latest.occurred + max(1, round(lifecycle.grant_ends)) * 1_000_000
    elif latest.kind is StepKind.RENEWED and lifecycle.tool == "emit":
        ends = latest.occurred + round(lifecycle.grant_ends * 1_000_000)
    else:  # another certificate ends with the first one
        ends, latest = trace.deadline, first if lifecycle.tool == "teleport" else latest
    return _time(ends - latest.ahead)


def _entitlement(trace: Trace, role: str, *, portal: bool) -> str:
    if portal:  # the name of the role in the account has a suffix
        return f"arn:aws:iam::{trace.writer.grant(StepKind.CHECKED).resource.id}:role/aws-reserved/"
    return f"engineer,{role}" if trace.writer.lifecycle.tool == "teleport" else role


def _environment(trace: Trace) -> str:
    """Return the environment by the tool, otherwise by the policy of the test."""
    lifecycle = trace.writer.lifecycle
    if lifecycle.tool == "emit":
        return "prod"
    if lifecycle.tool == "cloudtrail":
        return "production"
    return "production" if lifecycle.target.name.endswith(("-prod", "-postgres")) and lifecycle.tool != "vault" else ""


def _approvers(trace: Trace) -> tuple[str, ...]:
    lifecycle = trace.writer.lifecycle
    reviewers = [person.email for person in lifecycle.reviewers]
    if lifecycle.tool == "emit" or (lifecycle.tool == "hoop" and trace.find(StepKind.GRANTED)):
        return (reviewers[0],)
    if lifecycle.tool != "teleport":
        return ()
    first = reviewers[:1] if trace.find(StepKind.REVIEWED) else []
    return tuple(sorted({*first, *(reviewers[-1:] if trace.find(StepKind.APPROVED) else [])}))


def _rejected(trace: Trace) -> Iterator[RejectedRequest]:
    lifecycle = trace.writer.lifecycle
    denied, asked = trace.find(StepKind.DENIED), trace.find(StepKind.REQUESTED)
    if lifecycle.ending is not Ending.DENIED or denied is None or asked is None:
        return
    teleport = lifecycle.tool == "teleport"
    yield RejectedRequest(
        _time(asked.occurred),
        lifecycle.person.email,
        lifecycle.target.name,
        lifecycle.target.role if teleport else "unknown",
        f"{lifecycle.ticket}: {lifecycle.reason}" if teleport else "",
        f"{lifecycle.reviewers[-1].email} denied {_time(denied.occurred):%Y-%m-%d %H:%M:%S} UTC",
        lifecycle.tool,
    )


def _portal_sessions(trace: Trace) -> Iterator[Happening]:
    """Yield the visits to the access portal: AWS does not say which assignment they use."""
    fetched = trace.find(StepKind.ROLE_FETCHED)
    if fetched is not None:
        about = trace.writer.grant(StepKind.CHECKED)
        yield Happening(_time(fetched.occurred), "cloudtrail", about.subject, about.resource.id)


def _statements(trace: Trace) -> Iterator[Happening]:
    """Yield the SQL statements of hoop, which name the person and the connection."""
    lifecycle = trace.writer.lifecycle
    if lifecycle.tool != "hoop":
        return
    details = (step.detail for step in lifecycle.steps if step.kind is StepKind.ACTION)
    times = (one for one in trace.records if one.kind is StepKind.ACTION)
    for detail, both in zip(details, zip(times, times, strict=True), strict=True):  # a statement is opened and closed
        yield Happening(_time(both[0].occurred), detail, lifecycle.person.email, lifecycle.target.name)


def _locks(trace: Trace) -> Iterator[Happening]:
    """Yield the locks by which Teleport revokes: they decide who may get access."""
    lifecycle = trace.writer.lifecycle
    steps = [step for step in lifecycle.steps if step.kind is StepKind.REVOKED and step.detail != ACCESS_LIST]
    if isinstance(trace.writer, TeleportWriter) and steps:
        for one in trace.records:
            if one.kind is StepKind.REVOKED:
                by = lifecycle.reviewers[-1].email
                yield Happening(_time(one.occurred), "policy.changed", by, trace.writer.cluster)


def _time(micros: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
