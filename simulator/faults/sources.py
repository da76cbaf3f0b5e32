"""Faults: a source whose clock is wrong, that falls silent, loses a record or sends an altered one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from ...schemas.event import Source, make_event_id
from ..expected import ExpectedFinding, Trace, overdue
from ..lifecycle import Ending, Lifecycle, Step, StepKind
from ..policy import GAP_WAIT, GRACE, SECOND, SILENCE
from ..records.cloudtrail import ALTERED, CloudTrailWriter
from ..records.deploy_bot import DEPLOY_BOT, LOST
from .fault import Fault, Part

DAY = 86_400 * SECOND
CLOCK_AHEAD = 600.0
"""Seconds by which a wrong clock is ahead."""


def _unique(rng: random.Random, name: str) -> str:
    """Return an instance of its own, so that the fault affects no other lifecycle."""
    return f"{name}-{rng.getrandbits(48):012x}"


def _clock_skew(trace: Trace, source: str) -> Iterator[ExpectedFinding]:
    """Yield the finding of a fast clock, one per day on which it shows. The watch ignores actions in sessions."""
    kinds = (kind for kind in StepKind if kind not in (StepKind.ACTION, StepKind.ACTION_DENIED))
    records = (trace.find(kind) for kind in kinds)
    days: dict[int, int] = {}
    for append in sorted(times.append for times in records if times is not None and times.ahead):
        days.setdefault(append // DAY, append)
    for day, first in days.items():
        yield ExpectedFinding("clock_skew", source, day * DAY, first, (day + 1) * DAY)


class ClockFast(Fault):
    """The clock of one Vault is ten minutes fast, so its ends are ten minutes too late. Nobody gains access by it."""

    TOOL = "vault"
    WITHOUT = (StepKind.LEASED, StepKind.RENEWED)

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return replace(lifecycle, clock_ahead=CLOCK_AHEAD, instance=_unique(rng, "vault") + "/")

    def _finding(self, trace: Trace) -> Iterator[ExpectedFinding]:
        return _clock_skew(trace, f"vault/{trace.writer.lifecycle.instance.rstrip('/')}")


class ClockHidesTheEnd(Fault):
    """A program whose clock is ten minutes fast grants access, which is removed minutes after its true end.

    According to the program's clock, the access ended in time.
    """

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = replace(lifecycle, clock_ahead=CLOCK_AHEAD, instance=_unique(rng, "job"))
        gone = Step(lifecycle.grant_ends + rng.uniform(30, 400), StepKind.CHECKED)
        return lifecycle.without(StepKind.CHECKED, StepKind.SESSION_STARTED, StepKind.SESSION_ENDED).adding(gone)

    def _finding(self, trace: Trace) -> Iterator[ExpectedFinding]:
        granted = trace.last(StepKind.GRANTED)
        yield from _clock_skew(trace, f"{DEPLOY_BOT}/{trace.writer.lifecycle.instance}")
        yield overdue(trace.key, trace.deadline - granted.ahead, granted.append, trace.last(StepKind.CHECKED))


class ClockHidesASession(Fault):
    """A session continues after its certificate expired. The cluster's clock, ten minutes fast, hides it."""

    TOOL = "teleport"
    WITHOUT = (StepKind.RENEWED,)
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        lifecycle = replace(lifecycle, clock_ahead=CLOCK_AHEAD, instance=_unique(rng, "fast"))
        ended = Step(lifecycle.grant_ends + rng.uniform(30, 400), StepKind.SESSION_ENDED)
        return lifecycle.without(StepKind.SESSION_ENDED).adding(ended)

    def _finding(self, trace: Trace) -> Iterator[ExpectedFinding]:
        yield from _clock_skew(trace, f"teleport/{trace.writer.lifecycle.instance}")
        deadline = trace.deadline - trace.last(StepKind.GRANTED).ahead
        opens = min(deadline, trace.arrived(StepKind.EXPIRED)) + GRACE
        ends = trace.arrived(StepKind.SESSION_ENDED)
        yield ExpectedFinding("session_outlived_grant", trace.session, deadline, opens, ends)


class FallsSilent(Fault):
    """The collector of one Teleport cluster hangs for minutes, recovers, and then hangs forever."""

    TOOL = "teleport"
    NEEDS = ()

    def _suits(self, lifecycle: Lifecycle) -> bool:
        return lifecycle.ending in (Ending.DENIED, Ending.CANCELLED)

    def scenario(self, rng: random.Random) -> tuple[Part, ...]:
        """Return six lifecycles at normal intervals, and one more after a long silence."""
        instance = _unique(rng, "branch")
        offsets = list(itertools.accumulate((rng.uniform(20, 90) for _ in range(5)), initial=0.0))
        offsets.append(offsets[-1] + SILENCE / SECOND + rng.uniform(40, 400))
        return tuple(Part(replace(self._draw(rng), instance=instance), offset) for offset in offsets)

    def _findings(self, traces: Sequence[Trace]) -> Iterator[ExpectedFinding]:
        source = f"teleport/{traces[0].writer.lifecycle.instance}"
        appends = sorted(times.append for trace in traces for times in trace.records)
        for last, following in zip(appends, (*appends[1:], None), strict=True):
            if following is None or following > last + SILENCE:
                yield ExpectedFinding("source_silent", source, last + SILENCE, last + SILENCE, following)


class RecordLost(Fault):
    """One event of a program never arrives, but the sequence numbers around it do.

    It is the end of a session, so the session never ends.
    """

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        renewed = Step(lifecycle.when(StepKind.SESSION_ENDED) + 1, StepKind.RENEWED)
        lifecycle = replace(lifecycle.changing(StepKind.SESSION_ENDED, detail=LOST), instance=_unique(rng, "job"))
        gone = max(lifecycle.when(StepKind.CHECKED), renewed.after + 1)
        return lifecycle.without(StepKind.CHECKED).adding(renewed, Step(gone, StepKind.CHECKED))

    def _finding(self, trace: Trace) -> Iterator[ExpectedFinding]:
        renewed, lifecycle = trace.last(StepKind.RENEWED), trace.writer.lifecycle
        yield ExpectedFinding("sequence_gap", f"{DEPLOY_BOT}/{lifecycle.instance}#3", 0, renewed.append + GAP_WAIT)
        deadline = renewed.occurred + round(lifecycle.grant_ends * SECOND)
        opens = trace.arrived(StepKind.CHECKED) + GRACE
        yield ExpectedFinding("session_outlived_grant", trace.session, deadline, opens)


class RecordLate(Fault):
    """One event of a program arrives minutes after later ones. Until then a sequence number is missing."""

    TOOL = "emit"

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        delay = lifecycle.seconds + rng.uniform(60, 200)
        return replace(lifecycle.changing(StepKind.SESSION_STARTED, delay=delay), instance=_unique(rng, "job"))

    def _finding(self, trace: Trace) -> Iterator[ExpectedFinding]:
        opens, ends = trace.arrived(StepKind.SESSION_ENDED) + GAP_WAIT, trace.arrived(StepKind.SESSION_STARTED)
        yield ExpectedFinding("sequence_gap", f"{DEPLOY_BOT}/{trace.writer.lifecycle.instance}#2", 0, opens, ends)


class RecordAltered(Fault):
    """A record arrives again with its own id but another content: someone has edited the file."""

    TOOL = "cloudtrail"
    ENDING = Ending.EXPIRED

    def _alter(self, rng: random.Random, lifecycle: Lifecycle) -> Lifecycle:
        return lifecycle.adding(Step(lifecycle.seconds + rng.uniform(5, 300), StepKind.GRANTED, ALTERED))

    def _finding(self, trace: Trace) -> Iterator[ExpectedFinding]:
        writer = cast(CloudTrailWriter, trace.writer)
        source = Source("cloudtrail", writer.account, writer.grant_event, "sts.amazonaws.com/AssumeRole")
        key = make_event_id(source, "grant.activated", 0)
        yield ExpectedFinding("event_conflict", key, 0, trace.arrived(StepKind.GRANTED))
