"""Planted faults: access that nobody else approved, that has no end, or that lasts longer than allowed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from .fault import Expected, Fault, Told
from .life import Deed, Ending, Life, Step
from .policy import APPROVAL_WAIT, SECOND
from .teleport import ACCESS_LIST
from .vault import VaultTeller


class Themselves(Fault):
    """Whoever asks in Teleport approves as well."""

    NAME = "approved_themselves"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """One reviewer and one certificate, which ends by itself well after the wait for an approval."""
        alone = len(life.reviewers) == 1 and not life.has(Deed.RENEWED)
        return alone and life.ending is Ending.EXPIRED and life.grant_ends > 45

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The reviewer is the person; who that is, is not known before the story is cast."""
        return replace(life, reviewers=())

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """An approval of one's own, and none of another."""
        [one] = told
        approved, heard = one.last(Deed.APPROVED).append, one.last(Deed.GRANTED).append
        yield Expected("self_approved", one.teller.grant_id, 0, approved)
        yield Expected("no_approval", one.teller.grant_id, heard, heard + APPROVAL_WAIT, one.teller.until)


class ThemselvesInHoop(Fault):
    """Whoever asks in hoop approves as well, being of the group that may."""

    NAME = "approved_themselves_in_hoop"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """The access lasts longer than the wait for an approval."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The reviewer is the person."""
        return replace(life, reviewers=())

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """An approval of one's own, and none of another."""
        [one] = told
        approved = min(one.last(Deed.APPROVED).append, one.last(Deed.GRANTED).append)
        heard = one.last(Deed.GRANTED).append
        yield Expected("self_approved", one.teller.grant_id, 0, approved)
        gone = one.last(Deed.CHECKED).append
        yield Expected("no_approval", one.teller.grant_id, heard, heard + APPROVAL_WAIT, gone)


class NobodyApproved(Fault):
    """A certificate is issued under a request that nobody decided; sometimes the approval is made good later."""

    NAME = "nobody_approved"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """One certificate, which ends by itself well after the wait for an approval."""
        return life.ending is Ending.EXPIRED and life.grant_ends > 60 and not life.has(Deed.RENEWED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """No approval, or one that is late."""
        life = life.without(Deed.REVIEWED, Deed.APPROVED)
        late = life.when(Deed.GRANTED) + rng.uniform(27, 40)
        return life if rng.random() < 0.5 else life.also(Step(late, Deed.APPROVED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """No approval, until one comes or the certificate ends."""
        [one] = told
        heard, approved = one.last(Deed.GRANTED).append, one.maybe(Deed.APPROVED)
        ends = min(approved.append, one.teller.until) if approved else one.teller.until
        yield Expected("no_approval", one.teller.grant_id, heard, heard + APPROVAL_WAIT, ends)


class RenewedTooLong(Fault):
    """A Vault token is renewed for longer than the policy allows."""

    NAME = "renewed_too_long"
    TOOL = "vault"

    def suits(self, life: Life) -> bool:
        """Its token is not renewed anyway."""
        return life.has(Deed.GRANTED) and not life.has(Deed.RENEWED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """A renewal shortly before the end, of a token that lives long."""
        ends = rng.uniform(400, 590)
        renewed = max(life.when(Deed.REVOKED), 620 - ends) + rng.uniform(2, 90)
        life = replace(life, grant_ends=ends).without(Deed.REVOKED)
        return life.also(Step(renewed, Deed.RENEWED), Step(renewed + rng.uniform(5, 200), Deed.REVOKED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Beyond the policy from the renewal until the token is revoked."""
        [one] = told
        teller = cast(VaultTeller, one.teller)
        renewed = one.last(Deed.RENEWED)
        deadline = renewed.occurred + teller.seconds * SECOND
        gone = min(one.last(Deed.REVOKED).append, deadline)
        yield Expected("extended_beyond_policy", one.teller.grant_id, deadline, renewed.append, gone)


class MemberForEver(Fault):
    """Somebody is put on an access list of Teleport without an end, and taken off at some time or never."""

    NAME = "member_for_ever"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """Any life gives the person and the reason."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Nothing but the membership."""
        joined, left = Step(0.0, Deed.GRANTED, ACCESS_LIST), Step(rng.uniform(30, 500), Deed.REVOKED, ACCESS_LIST)
        return replace(life, steps=(joined,) if rng.random() < 0.5 else (joined, left))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """No deadline, from the beginning until the end."""
        [one] = told
        left = one.maybe(Deed.REVOKED)
        yield Expected("no_deadline", one.teller.grant_id, 0, one.last(Deed.GRANTED).append, left and left.append)


RIGHTS_FAULTS: tuple[type[Fault], ...] = (
    Themselves,
    ThemselvesInHoop,
    NobodyApproved,
    RenewedTooLong,
    MemberForEver,
)
