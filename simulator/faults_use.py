"""Planted faults: access used when there is none, or longer than it lasts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from .fault import Expected, Fault, Told
from .life import Deed, Ending, Life, Step
from .policy import APPROVAL_WAIT, GRACE


class SessionLivesOn(Fault):
    """A Teleport session goes on after its certificate has ended, or after a lock that was to cut it off."""

    NAME = "session_lives_on"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """It takes a session."""
        return life.has(Deed.SESSION_STARTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The session ends late or never."""
        ends = life.when(Deed.REVOKED) if life.ending is Ending.REVOKED else life.grant_ends
        life = life.without(Deed.SESSION_ENDED)
        return life if rng.random() < 0.3 else life.also(Step(ends + rng.uniform(30, 300), Deed.SESSION_ENDED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """A session that outlived its grant, from the end of the grant and the grace on."""
        [one] = told
        deadline = one.teller.until
        locked, ended = one.maybe(Deed.REVOKED), one.maybe(Deed.SESSION_ENDED)
        over = min(locked.append, deadline) if locked else deadline
        yield Expected("session_outlived_grant", one.teller.session_id, deadline, over + GRACE, ended and ended.append)


class ShellLivesOn(Fault):
    """A shell of Session Manager stays open when the credentials that opened it have ended."""

    NAME = "shell_lives_on"
    TOOL = "cloudtrail"

    def suits(self, life: Life) -> bool:
        """It takes a shell."""
        return life.has(Deed.SESSION_STARTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The shell is left minutes after the end of the credentials."""
        ended = Step(life.grant_ends + rng.uniform(30, 300), Deed.SESSION_ENDED)
        return life.without(Deed.SESSION_ENDED).also(ended)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """A session that outlived its grant."""
        [one] = told
        deadline, ended = one.teller.until, one.last(Deed.SESSION_ENDED).append
        yield Expected("session_outlived_grant", one.teller.session_id, deadline, deadline + GRACE, ended)


class UsedAfterTheEnd(Fault):
    """A session begins under a request whose certificate has long ended: somebody kept a way in."""

    NAME = "used_after_the_end"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """The grant ends by itself."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The session comes after the end."""
        begins = life.grant_ends + rng.uniform(40, 300)
        life = life.without(Deed.SESSION_STARTED, Deed.ACTED, Deed.REFUSED, Deed.SESSION_ENDED)
        return life.also(Step(begins, Deed.SESSION_STARTED), Step(begins + rng.uniform(40, 200), Deed.SESSION_ENDED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Use without a grant, as soon as no grant can be on its way any more."""
        [one] = told
        started, ended = one.last(Deed.SESSION_STARTED).append, one.last(Deed.SESSION_ENDED).append
        yield Expected("used_without_grant", one.teller.session_id, 0, started + APPROVAL_WAIT, ended)


class NeverGranted(Fault):
    """A session names a request for which no certificate was ever issued."""

    NAME = "never_granted"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """It takes a session."""
        return life.has(Deed.SESSION_STARTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """No certificate, no end of one; the session stays open."""
        return life.without(Deed.GRANTED, Deed.RENEWED, Deed.SESSION_ENDED, Deed.REVOKED, Deed.EXPIRED)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Use without a grant."""
        [one] = told
        started = one.last(Deed.SESSION_STARTED).append
        yield Expected("used_without_grant", one.teller.session_id, 0, started + APPROVAL_WAIT)


class UsedBriefly(NeverGranted):
    """The same, and the session is over after seconds: as a rule before anybody can know that no grant will come."""

    NAME = "used_briefly"

    def alter(self, rng: random.Random, life: Life) -> Life:
        """No certificate, no end of one."""
        return life.without(Deed.GRANTED, Deed.RENEWED, Deed.REVOKED, Deed.EXPIRED)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Use without a grant, though it is over when it is found."""
        [found] = super().expects(told)
        yield found._replace(ends=max(told[0].last(Deed.SESSION_ENDED).append, found.opens + 1))


USE_FAULTS: tuple[type[Fault], ...] = (SessionLivesOn, ShellLivesOn, UsedAfterTheEnd, NeverGranted, UsedBriefly)
