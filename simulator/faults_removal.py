"""Planted faults: access that was to go and stayed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from .fault import Expected, Fault, Part, Told, overdue, two_of_one_access
from .life import Deed, Ending, Life, Step
from .policy import ASSIGNMENT, CONFIRM_WAIT, GRACE, LEASE, SECOND
from .vault import UNREACHABLE, VaultTeller


def _end(seconds: int) -> float:
    """Return a limit of the policy with its grace, in seconds."""
    return (seconds + GRACE) / SECOND


class LeaseStays(Fault):
    """Vault cannot reach the database when it revokes a lease: the account stays, and Vault's answer is an error.

    Sometimes somebody tries again much later, and the checker finds the account gone.
    """

    NAME = "lease_stays"
    TOOL = "vault"

    def suits(self, life: Life) -> bool:
        """It takes a lease."""
        return life.has(Deed.LEASED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The revocation fails; nobody looks, or much later."""
        failed = tuple(
            replace(step, detail=UNREACHABLE) if step.deed is Deed.LEASE_REVOKED else step for step in life.steps
        )
        life = replace(life, steps=failed).without(Deed.LEASE_CHECKED)
        if rng.random() < 0.5:
            return life
        again = life.when(Deed.LEASED) + _end(LEASE) + rng.uniform(20, 400)
        return life.also(Step(again, Deed.LEASE_REVOKED), Step(again + 2, Deed.LEASE_CHECKED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Overdue once the policy's time for a lease is up."""
        [one] = told
        lease = cast(VaultTeller, one.teller).lease
        heard = one.last(Deed.LEASED).append
        yield overdue(lease, heard + LEASE, heard, one.maybe(Deed.LEASE_CHECKED))


class LeaseOnlyAccepted(Fault):
    """Vault takes the order to revoke a lease and queues it; the database never hears of it."""

    NAME = "lease_only_accepted"
    TOOL = "vault"

    def suits(self, life: Life) -> bool:
        """It takes a lease."""
        return life.has(Deed.LEASED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Nobody finds the account gone."""
        return life.without(Deed.LEASE_CHECKED)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """A removal that stays unconfirmed, and then overdue as well."""
        [one] = told
        lease = cast(VaultTeller, one.teller).lease
        heard = one.last(Deed.LEASED).append
        deadline = heard + LEASE
        accepted = one.last(Deed.LEASE_REVOKED).append
        yield Expected("removal_unconfirmed", lease, deadline, accepted + CONFIRM_WAIT)
        yield overdue(lease, deadline, heard, None)


class RenewedWhileOverdue(Fault):
    """A lease that is overdue is renewed. The renewal names no end: by the policy it still had to end long ago."""

    NAME = "renewed_while_overdue"
    TOOL = "vault"

    def suits(self, life: Life) -> bool:
        """It takes a lease that is not renewed anyway."""
        return life.has(Deed.LEASED) and not life.has(Deed.LEASE_RENEWED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """It is renewed after its end, and found gone much later."""
        renewed = life.when(Deed.LEASED) + _end(LEASE) + rng.uniform(20, 100)
        life = life.without(Deed.LEASE_REVOKED, Deed.LEASE_CHECKED)
        gone = renewed + rng.uniform(300, 400)
        return life.also(Step(renewed, Deed.LEASE_RENEWED), Step(gone, Deed.LEASE_CHECKED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Overdue without a break."""
        [one] = told
        heard = one.last(Deed.LEASED).append
        lease = cast(VaultTeller, one.teller).lease
        yield overdue(lease, heard + LEASE, heard, one.last(Deed.LEASE_CHECKED))


class RevokeInProgress(Fault):
    """Identity Center answers the deletion of an assignment with IN_PROGRESS, and that is where it stays."""

    NAME = "revoke_in_progress"
    TOOL = "cloudtrail"

    def suits(self, life: Life) -> bool:
        """It takes an assignment."""
        return life.has(Deed.REVOKED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Nobody finds it gone, or much later."""
        life = life.without(Deed.CHECKED)
        return life if rng.random() < 0.5 else life.also(Step(_end(ASSIGNMENT) + rng.uniform(20, 400), Deed.CHECKED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """A removal that stays unconfirmed, and overdue once the policy's time for an assignment is up."""
        [one] = told
        heard, key, gone = one.last(Deed.GRANTED).append, one.teller.grant_id, one.maybe(Deed.CHECKED)
        opens = one.last(Deed.REVOKED).append + CONFIRM_WAIT
        deadline = heard + ASSIGNMENT
        yield Expected("removal_unconfirmed", key, deadline, opens, gone and gone.append)
        yield overdue(key, deadline, heard, gone)


class ApprovalLooksLikeRevocation(Fault):
    """hoop's review has ``revoke_at`` from the moment of its approval. It is a plan; here nobody carries it out.

    Whoever takes it for a revocation believes the access gone before it was ever used.
    """

    NAME = "approval_looks_like_revocation"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """Nobody revokes it before its time."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Nobody finds the connection shut, or late."""
        life = life.without(Deed.CHECKED)
        return life if rng.random() < 0.5 else life.also(Step(life.grant_ends + rng.uniform(20, 300), Deed.CHECKED))

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Overdue after the planned end."""
        [one] = told
        yield overdue(one.teller.grant_id, one.teller.until, one.last(Deed.GRANTED).append, one.maybe(Deed.CHECKED))


class NewsComesLate(Fault):
    """The access ended on time, but the record of it hung somewhere for minutes.

    A finding opens, because nobody could know; it is resolved with the true lateness, which is none.
    """

    NAME = "news_comes_late"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """The end is to be found by the checker."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """What the checker found is long on its way."""
        delay = rng.uniform(30, 300)
        steps = (replace(step, delay=delay) if step.deed is Deed.CHECKED else step for step in life.steps)
        return replace(life, steps=tuple(steps), checker=f"slow-{rng.getrandbits(48):012x}")

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Overdue until the news comes."""
        [one] = told
        yield overdue(one.teller.grant_id, one.teller.until, one.last(Deed.GRANTED).append, one.last(Deed.CHECKED))


class LeftOverOfTwo(Fault):
    """Two reviews let the same person into the same connection. Both end; only the later one is ever looked after.

    While the later one holds, nothing is wrong: access is overdue only when the union of its grants has ended.
    """

    NAME = "left_over_of_two"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """Nobody revokes it before its time."""
        return life.ending is Ending.EXPIRED

    def story(self, rng: random.Random) -> tuple[Part, ...]:
        """The second begins while the first holds, and outlasts it by more than the grace."""
        first, second, offset = two_of_one_access(rng, self.TOOL, self.suits)
        return Part(first.without(Deed.CHECKED)), Part(second, offset)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """The first is overdue from when the second was gone; the second never."""
        first, second = told
        gone = second.last(Deed.CHECKED).append
        yield Expected("overdue", first.teller.grant_id, first.teller.until, gone)


class BothLeftOver(Fault):
    """Two reviews let the same person into the same connection, and nobody looks after either."""

    NAME = "both_left_over"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """Nobody revokes it before its time."""
        return life.ending is Ending.EXPIRED

    def story(self, rng: random.Random) -> tuple[Part, ...]:
        """Neither is found gone."""
        first, second, offset = two_of_one_access(rng, self.TOOL, self.suits)
        return Part(first.without(Deed.CHECKED)), Part(second.without(Deed.CHECKED), offset)

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Both are overdue from the end of the longer one on."""
        first, second = told
        opens = second.teller.until + GRACE
        yield Expected("overdue", first.teller.grant_id, first.teller.until, opens)
        yield Expected("overdue", second.teller.grant_id, second.teller.until, opens)


REMOVAL_FAULTS: tuple[type[Fault], ...] = (
    LeaseStays,
    LeaseOnlyAccepted,
    RenewedWhileOverdue,
    RevokeInProgress,
    ApprovalLooksLikeRevocation,
    NewsComesLate,
    LeftOverOfTwo,
    BothLeftOver,
)
