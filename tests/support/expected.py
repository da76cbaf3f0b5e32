"""The findings that the watch must report for each planted fault, from the written records and their arrival times.

Nothing of the watch is used here: its findings are compared with these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from grantledger.simulator.company_policy import (
    APPROVAL_WAIT,
    ASSIGNMENT,
    CONFIRM_WAIT,
    GAP_WAIT,
    GRACE,
    LEASE,
    SECOND,
    SILENCE,
)
from grantledger.simulator.lifecycle import StepKind
from grantledger.simulator.records.cloudtrail import CloudTrailWriter
from grantledger.simulator.records.deploy_bot import DEPLOY_BOT
from grantledger.simulator.records.program import INTRUDER
from grantledger.simulator.records.writer import RecordWriter

HOUR = 3600 * SECOND


class ExpectedFinding(NamedTuple):
    """A finding that the watch must report under the simulated policy. Times are microseconds since 1970.

    Attributes:
        rule: the rule of the finding.
        key: the grant, session, source or event that it concerns.
        deadline: the deadline concerned. Rule, key and deadline identify the finding.
        opens: when the condition starts; the watch must report it at its next check.
        ends: when the condition ends, or None if it never does.
        late: how many seconds the access outlived its deadline, for ``overdue`` access that was removed.
        fault: the name of the fault that causes it.
    """

    rule: str
    key: str
    deadline: int
    opens: int
    ends: int | None = None
    late: float | None = None
    fault: str = ""

    @property
    def identity(self) -> tuple[str, str, int]:
        """Rule, key and deadline."""
        return self.rule, self.key, self.deadline


class RecordTimes(NamedTuple):
    """The times of one record: the time in the record, and the broker's append time."""

    kind: StepKind
    occurred: int
    append: int

    @property
    def ahead(self) -> int:
        """By how much the writer's clock was ahead of the broker's."""
        return max(0, self.occurred - self.append)


@dataclass(slots=True)
class Trace:
    """A lifecycle as it was written, with the times of its records in the order of writing."""

    writer: RecordWriter
    records: list[RecordTimes] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The grant's access key."""
        return self._key(self.writer.grant_id, self.writer.source)

    @property
    def lease(self) -> str:
        """The lease's access key."""
        return self._key(self.writer.lease_path, self.writer.source)

    @property
    def session(self) -> str:
        """The session's access key. Sessions belong to an account, although access keys do not."""
        writer = self.writer
        account = writer.account if isinstance(writer, CloudTrailWriter) else writer.source[1]
        return self._key(writer.session_id, (writer.source[0], account))

    def _key(self, id: str, source: tuple[str, str]) -> str:
        # No name in the simulation needs escaping.
        return f"{self.writer.lifecycle.tenant}/{source[0]}/{source[1]}/{id}"

    @property
    def deadline(self) -> int:
        """The end of the access according to the records."""
        return self.writer.until

    def find(self, kind: StepKind) -> RecordTimes | None:
        """Return the last record of a kind: if a tool writes two, the second one counts. None without a record."""
        return next((times for times in reversed(self.records) if times.kind is kind), None)

    def last(self, kind: StepKind) -> RecordTimes:
        """Return the last record of a kind, which must exist."""
        return next(times for times in reversed(self.records) if times.kind is kind)

    def arrived(self, kind: StepKind) -> int:
        """Return the append time of the last record of a kind."""
        return self.last(kind).append

    def arrived_if_any(self, kind: StepKind) -> int | None:
        """Return the append time of the last record of a kind, or None without a record."""
        found = self.find(kind)
        return found and found.append


def overdue(key: str, deadline: int, known: int, removal: RecordTimes | None) -> ExpectedFinding:
    """Return the finding for access that outlived its deadline.

    ``known`` is the append time of the grant; ``removal`` is the record that proves the removal, if there is one.
    """
    opens = max(deadline, known) + GRACE
    if removal is None:
        return ExpectedFinding("overdue", key, deadline, opens)
    late = (min(removal.occurred, removal.append) - deadline) / SECOND
    return ExpectedFinding("overdue", key, deadline, opens, removal.append, late)


Expectation = Callable[..., Iterator[ExpectedFinding]]
EXPECTED: dict[str, Expectation] = {}
"""What yields the findings of a fault from the traces of its lifecycles, by the name of the fault."""


def expected(function: Expectation) -> Expectation:
    """Register a function under its name, without the underscore."""
    EXPECTED[function.__name__.removeprefix("_")] = function
    return function


def _lease_overdue(trace: Trace) -> ExpectedFinding:
    known = trace.arrived(StepKind.LEASED)
    return overdue(trace.lease, known + LEASE, known, trace.find(StepKind.LEASE_CHECKED))


def _lease_unconfirmed(trace: Trace) -> Iterator[ExpectedFinding]:
    """Yield the finding that the end of its token, which Vault accepted, is no proof of the end of the lease."""
    opens = trace.arrived(StepKind.REVOKED) + CONFIRM_WAIT
    ends = trace.arrived_if_any(StepKind.LEASE_CHECKED)
    if ends is None or opens < ends:
        yield ExpectedFinding("removal_unconfirmed", trace.lease, _lease_overdue(trace).deadline, opens, ends)


@expected
def _lease_stays(trace: Trace) -> Iterator[ExpectedFinding]:
    yield from _lease_unconfirmed(trace)
    yield _lease_overdue(trace)


@expected
def _lease_only_accepted(trace: Trace) -> Iterator[ExpectedFinding]:
    finding = _lease_overdue(trace)
    opens = trace.arrived(StepKind.LEASE_REVOKED) + CONFIRM_WAIT
    yield ExpectedFinding("removal_unconfirmed", finding.key, finding.deadline, opens)
    yield finding


@expected
def _renewed_while_overdue(trace: Trace) -> Iterator[ExpectedFinding]:
    yield from _lease_unconfirmed(trace)
    yield _lease_overdue(trace)


@expected
def _revoke_in_progress(trace: Trace) -> Iterator[ExpectedFinding]:
    known = trace.arrived(StepKind.GRANTED)
    opens = trace.arrived(StepKind.REVOKED) + CONFIRM_WAIT
    deadline, gone = known + ASSIGNMENT, trace.arrived_if_any(StepKind.CHECKED)
    yield ExpectedFinding("removal_unconfirmed", trace.key, deadline, opens, gone)
    yield overdue(trace.key, deadline, known, trace.find(StepKind.CHECKED))


@expected
def _approval_looks_like_revocation(trace: Trace) -> Iterator[ExpectedFinding]:
    yield overdue(trace.key, trace.deadline, trace.arrived(StepKind.GRANTED), trace.find(StepKind.CHECKED))


@expected
def _removal_reported_late(trace: Trace) -> Iterator[ExpectedFinding]:
    yield overdue(trace.key, trace.deadline, trace.arrived(StepKind.GRANTED), trace.last(StepKind.CHECKED))


@expected
def _first_of_two_stays(first: Trace, second: Trace) -> Iterator[ExpectedFinding]:
    yield ExpectedFinding("overdue", first.key, first.deadline, second.arrived(StepKind.CHECKED))


@expected
def _both_stay(*traces: Trace) -> Iterator[ExpectedFinding]:
    opens = traces[1].deadline + GRACE
    for trace in traces:
        yield ExpectedFinding("overdue", trace.key, trace.deadline, opens)


@expected
def _session_outlives_grant(trace: Trace) -> Iterator[ExpectedFinding]:
    opens = min(trace.arrived_if_any(StepKind.REVOKED) or trace.deadline, trace.deadline) + GRACE
    ends = trace.arrived_if_any(StepKind.SESSION_ENDED)
    yield ExpectedFinding("session_outlived_grant", trace.session, trace.deadline, opens, ends)


@expected
def _shell_outlives_grant(trace: Trace) -> Iterator[ExpectedFinding]:
    opens, ends = trace.deadline + GRACE, trace.arrived(StepKind.SESSION_ENDED)
    yield ExpectedFinding("session_outlived_grant", trace.session, trace.deadline, opens, ends)


@expected
def _used_after_the_end(trace: Trace) -> Iterator[ExpectedFinding]:
    opens = trace.arrived(StepKind.SESSION_STARTED) + APPROVAL_WAIT
    yield ExpectedFinding("used_without_grant", trace.session, 0, opens, trace.arrived(StepKind.SESSION_ENDED))


@expected
def _never_granted(trace: Trace) -> Iterator[ExpectedFinding]:
    opens = trace.arrived(StepKind.SESSION_STARTED) + APPROVAL_WAIT
    yield ExpectedFinding("used_without_grant", trace.session, 0, opens)


@expected
def _used_briefly(trace: Trace) -> Iterator[ExpectedFinding]:
    [finding] = _never_granted(trace)
    yield finding._replace(ends=max(trace.arrived(StepKind.SESSION_ENDED), finding.opens + 1))


def _no_approval(trace: Trace, ends: int) -> ExpectedFinding:
    known = trace.arrived(StepKind.GRANTED)
    return ExpectedFinding("no_approval", trace.key, known, known + APPROVAL_WAIT, ends)


@expected
def _self_approved(trace: Trace) -> Iterator[ExpectedFinding]:
    yield ExpectedFinding("self_approved", trace.key, 0, trace.arrived(StepKind.APPROVED))
    yield _no_approval(trace, trace.deadline)


@expected
def _self_approved_in_hoop(trace: Trace) -> Iterator[ExpectedFinding]:
    approved = min(trace.arrived(StepKind.APPROVED), trace.arrived(StepKind.GRANTED))
    yield ExpectedFinding("self_approved", trace.key, 0, approved)
    yield _no_approval(trace, trace.arrived(StepKind.CHECKED))


@expected
def _not_approved(trace: Trace) -> Iterator[ExpectedFinding]:
    yield _no_approval(trace, min(trace.arrived_if_any(StepKind.APPROVED) or trace.deadline, trace.deadline))


@expected
def _renewed_too_long(trace: Trace) -> Iterator[ExpectedFinding]:
    renewed = trace.last(StepKind.RENEWED)
    deadline = renewed.occurred + round(trace.writer.lifecycle.grant_ends) * SECOND
    ends = min(trace.arrived(StepKind.REVOKED), deadline)
    yield ExpectedFinding("extended_beyond_policy", trace.key, deadline, renewed.append, ends)


@expected
def _member_forever(trace: Trace) -> Iterator[ExpectedFinding]:
    joined, left = trace.arrived(StepKind.GRANTED), trace.arrived_if_any(StepKind.REVOKED)
    yield ExpectedFinding("no_deadline", trace.key, 0, joined, left)


def _clock_skew(trace: Trace, source: str) -> Iterator[ExpectedFinding]:
    """Yield the finding of a fast clock, one per hour in which it shows. The watch ignores actions in sessions."""
    kinds = (kind for kind in StepKind if kind not in (StepKind.ACTION, StepKind.ACTION_DENIED))
    records = (trace.find(kind) for kind in kinds)
    hours: dict[int, int] = {}
    for append in sorted(times.append for times in records if times is not None and times.ahead):
        hours.setdefault(append // HOUR, append)
    for hour, first in hours.items():
        yield ExpectedFinding(
            "clock_skew", f"{trace.writer.lifecycle.tenant}/{source}", hour * HOUR, first, (hour + 1) * HOUR
        )


@expected
def _clock_fast(trace: Trace) -> Iterator[ExpectedFinding]:
    return _clock_skew(trace, f"vault/{trace.writer.lifecycle.instance.rstrip('/')}")


@expected
def _clock_hides_the_end(trace: Trace) -> Iterator[ExpectedFinding]:
    granted = trace.last(StepKind.GRANTED)
    yield from _clock_skew(trace, f"{DEPLOY_BOT}/{trace.writer.lifecycle.instance}")
    yield overdue(trace.key, trace.deadline - granted.ahead, granted.append, trace.last(StepKind.CHECKED))


@expected
def _clock_hides_a_session(trace: Trace) -> Iterator[ExpectedFinding]:
    yield from _clock_skew(trace, f"teleport/{trace.writer.lifecycle.instance}")
    deadline = trace.deadline - trace.last(StepKind.GRANTED).ahead
    opens = deadline + GRACE
    ends = trace.arrived(StepKind.SESSION_ENDED)
    yield ExpectedFinding("session_outlived_grant", trace.session, deadline, opens, ends)


@expected
def _falls_silent(*traces: Trace) -> Iterator[ExpectedFinding]:
    source = f"teleport/{traces[0].writer.lifecycle.instance}"
    appends = sorted(times.append for trace in traces for times in trace.records)
    for last, following in zip(appends, (*appends[1:], None), strict=True):
        if following is None or following > last + SILENCE:
            yield ExpectedFinding("source_silent", source, last + SILENCE, last + SILENCE, following)


@expected
def _record_lost(trace: Trace) -> Iterator[ExpectedFinding]:
    renewed, lifecycle = trace.last(StepKind.RENEWED), trace.writer.lifecycle
    opens = renewed.append + GAP_WAIT
    yield ExpectedFinding("sequence_gap", f"{DEPLOY_BOT}/{lifecycle.instance}", opens // HOUR * HOUR, opens)
    deadline = renewed.occurred + round(lifecycle.grant_ends * SECOND)
    opens = trace.arrived(StepKind.CHECKED) + GRACE
    yield ExpectedFinding("session_outlived_grant", trace.session, deadline, opens)


@expected
def _record_late(trace: Trace) -> Iterator[ExpectedFinding]:
    opens, arrived = trace.arrived(StepKind.SESSION_ENDED) + GAP_WAIT, trace.arrived(StepKind.SESSION_STARTED)
    ends = max(arrived, (opens // HOUR + 1) * HOUR)  # one finding has all gaps of the hour
    source = f"{DEPLOY_BOT}/{trace.writer.lifecycle.instance}"
    yield ExpectedFinding("sequence_gap", source, opens // HOUR * HOUR, opens, ends)


@expected
def _record_altered(trace: Trace) -> Iterator[ExpectedFinding]:
    found = trace.arrived(StepKind.GRANTED)
    account = cast(CloudTrailWriter, trace.writer).account
    yield ExpectedFinding(
        "event_conflict", f"{trace.writer.lifecycle.tenant}/cloudtrail/{account}", found // HOUR * HOUR, found
    )


def _foreign_claim(trace: Trace, kind: StepKind) -> ExpectedFinding:
    claimed = trace.arrived(kind)
    hour = claimed // HOUR * HOUR
    return ExpectedFinding(
        "foreign_claim",
        f"{trace.writer.lifecycle.tenant}/{INTRUDER}/{trace.writer.lifecycle.intruder[0]}",
        hour,
        claimed,
        hour + HOUR,
    )


@expected
def _foreign_removal(trace: Trace) -> Iterator[ExpectedFinding]:
    yield _foreign_claim(trace, StepKind.FALSELY_REMOVED)
    yield overdue(trace.key, trace.deadline, trace.arrived(StepKind.GRANTED), None)


@expected
def _foreign_extension(trace: Trace) -> Iterator[ExpectedFinding]:
    yield _foreign_claim(trace, StepKind.FALSELY_EXTENDED)
    yield overdue(trace.key, trace.deadline, trace.arrived(StepKind.GRANTED), trace.find(StepKind.CHECKED))


@expected
def _other_tenant_ends(trace: Trace, _: Trace) -> Iterator[ExpectedFinding]:
    yield overdue(trace.key, trace.deadline, trace.arrived(StepKind.GRANTED), None)
