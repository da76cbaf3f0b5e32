"""Planted faults: a tool whose clock is wrong, that falls silent, loses a record or tells one thing in two ways."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from ..schemas.event import Source, make_event_id
from .cloudtrail import OTHERWISE, CloudTrailTeller
from .deploys import PROGRAM, UNSENT
from .fault import Expected, Fault, Part, Told, drawn, overdue
from .life import Deed, Ending, Life, Step
from .policy import GAP_WAIT, GRACE, SECOND, SILENCE

DAY = 86_400 * SECOND
FAST = 600.0
"""Seconds by which a wrong clock is ahead."""


def _skew(told: Told, source: str) -> Iterator[Expected]:
    """Yield the finding of a fast clock, once for each day on which it shows. Session commands are not watched."""
    days: dict[int, int] = {}
    lines = (told.maybe(deed) for deed in Deed if deed not in (Deed.ACTED, Deed.REFUSED))
    for append in sorted(moment.append for moment in lines if moment is not None and moment.ahead):
        days.setdefault(append // DAY, append)
    for day, first in days.items():
        yield Expected("clock_skew", source, day * DAY, first, (day + 1) * DAY)


class ClockTenMinutesFast(Fault):
    """One Vault's clock is ten minutes fast. What it says of ends is ten minutes too late; nobody gains by it."""

    NAME = "clock_fast"
    TOOL = "vault"

    def suits(self, life: Life) -> bool:
        """A token alone."""
        return life.has(Deed.GRANTED) and not life.has(Deed.LEASED) and not life.has(Deed.RENEWED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The Vault is one of its own, so that no other life is told by its clock."""
        return replace(life, fast=FAST, place=f"vault-{rng.getrandbits(48):012x}/")

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The clock, and nothing about the access."""
        [one] = told
        yield from _skew(one, f"vault/{one.teller.life.place.rstrip('/')}")


class ClockHidesTheEnd(Fault):
    """A program whose clock is ten minutes fast gives access; it is taken away minutes after its true end.

    By the program's own word there was still time.
    """

    NAME = "clock_hides_the_end"
    TOOL = "own"

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The look that finds it gone comes between the true end and the one that was said."""
        life = replace(life, fast=FAST, place=f"job-{rng.getrandbits(48):012x}")
        gone = Step(life.grant_ends + rng.uniform(30, 400), Deed.CHECKED)
        return life.without(Deed.CHECKED, Deed.SESSION_STARTED, Deed.SESSION_ENDED).also(gone)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The clock; and overdue at the end that was said less the clock's lead."""
        [one] = told
        given = one.last(Deed.GRANTED)
        yield from _skew(one, f"{PROGRAM}/{one.teller.life.place}")
        deadline = one.teller.until - given.ahead
        yield overdue(one.teller.grant_id, deadline, given.append, one.last(Deed.CHECKED))


class ClockHidesASession(Fault):
    """A session goes on after its certificate has ended; the cluster's clock, ten minutes fast, says there is time."""

    NAME = "clock_hides_a_session"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """One certificate, which ends by itself."""
        return life.ending is Ending.EXPIRED and not life.has(Deed.RENEWED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The session ends between the true end and the one that was said."""
        life = replace(life, fast=FAST, place=f"fast-{rng.getrandbits(48):012x}").without(Deed.SESSION_ENDED)
        return life.also(Step(life.grant_ends + rng.uniform(30, 400), Deed.SESSION_ENDED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The clock; and a session that outlived the end that was said less the clock's lead."""
        [one] = told
        yield from _skew(one, f"teleport/{one.teller.life.place}")
        given = one.last(Deed.GRANTED)
        deadline, ended = one.teller.until - given.ahead, one.last(Deed.SESSION_ENDED).append
        over = min(deadline, one.last(Deed.EXPIRED).append)
        yield Expected("session_outlived_grant", one.teller.session_id, deadline, over + GRACE, ended)


class BranchFallsSilent(Fault):
    """The collector of one Teleport cluster hangs for minutes, comes back, and then hangs for good."""

    NAME = "falls_silent"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """Requests are enough."""
        return life.ending in (Ending.DENIED, Ending.CANCELLED)

    def story(self, rng: random.Random) -> tuple[Part, ...]:
        """Six lives at a normal distance, a long silence, and one more."""
        place = f"branch-{rng.getrandbits(48):012x}"
        offsets = list(itertools.accumulate((rng.uniform(20, 90) for _ in range(5)), initial=0.0))
        offsets.append(offsets[-1] + SILENCE / SECOND + rng.uniform(40, 400))
        lives = (replace(drawn(rng, self.TOOL, self.suits), place=place) for _ in offsets)
        return tuple(Part(life, offset) for life, offset in zip(lives, offsets, strict=True))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Silent from the longest normal silence on until it speaks again; and once more for ever."""
        source = f"teleport/{told[0].teller.life.place}"
        heard = sorted(moment.append for one in told for moment in one.moments)
        for last, following in zip(heard, (*heard[1:], None), strict=True):
            if following is None or following > last + SILENCE:
                yield Expected("source_silent", source, last + SILENCE, last + SILENCE, following)


class RecordLost(Fault):
    """One event that a program sent with the client library never came; the numbers around it did."""

    NAME = "record_lost"
    TOOL = "own"

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The end of its session is lost: the session then never ends."""
        steps = (replace(step, detail=UNSENT) if step.deed is Deed.SESSION_ENDED else step for step in life.steps)
        renewed = Step(life.when(Deed.SESSION_ENDED) + 1, Deed.RENEWED)
        life = replace(life, steps=tuple(steps), place=f"job-{rng.getrandbits(48):012x}").also(renewed)
        gone = max(life.when(Deed.CHECKED), renewed.after + 1)
        return life.without(Deed.CHECKED).also(Step(gone, Deed.CHECKED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The gap; and the session, of which nobody heard that it ended."""
        [one] = told
        source = f"{PROGRAM}/{one.teller.life.place}"
        yield Expected("sequence_gap", f"{source}#3", 0, one.last(Deed.RENEWED).append + GAP_WAIT)
        renewed, gone = one.last(Deed.RENEWED), one.last(Deed.CHECKED).append
        deadline = renewed.occurred + round(one.teller.life.grant_ends * SECOND)
        opens = gone + GRACE
        yield Expected("session_outlived_grant", one.teller.session_id, deadline, opens)


class RecordLate(Fault):
    """One event that a program sent came minutes after the others. Until then a number was missing."""

    NAME = "record_late"
    TOOL = "own"

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The beginning of its session is long on its way."""
        delay = life.seconds + rng.uniform(60, 200)
        steps = (replace(step, delay=delay) if step.deed is Deed.SESSION_STARTED else step for step in life.steps)
        return replace(life, steps=tuple(steps), place=f"job-{rng.getrandbits(48):012x}")

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The gap, until the event came."""
        [one] = told
        opens, ends = one.last(Deed.SESSION_ENDED).append + GAP_WAIT, one.last(Deed.SESSION_STARTED).append
        yield Expected("sequence_gap", f"{PROGRAM}/{one.teller.life.place}#2", 0, opens, ends)


class ToldTwoWays(Fault):
    """A record comes again under its own id and says something else: somebody has been at the file."""

    NAME = "told_two_ways"
    TOOL = "cloudtrail"

    def suits(self, life: Life) -> bool:
        """A role of STS."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The same record of the role's credentials, from another address."""
        return life.also(Step(life.seconds + rng.uniform(5, 300), Deed.GRANTED, OTHERWISE))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The conflict, from when the second came, for good."""
        [one] = told
        teller = cast(CloudTrailTeller, one.teller)
        source = Source("cloudtrail", teller.account, teller.grant_event, "sts.amazonaws.com/AssumeRole")
        key = make_event_id(source, "grant.activated", 0)
        yield Expected("event_conflict", key, 0, one.last(Deed.GRANTED).append)


SOURCE_FAULTS: tuple[type[Fault], ...] = (
    ClockTenMinutesFast,
    ClockHidesTheEnd,
    ClockHidesASession,
    BranchFallsSilent,
    RecordLost,
    RecordLate,
    ToldTwoWays,
)
