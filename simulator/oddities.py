"""Stories that look wrong and are not: whoever watches must say nothing of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .fault import Expected, Fault, Part, Told, drawn, two_of_one_access
from .life import Deed, Ending, Life, Step


class _Harmless(Fault):
    """Nothing is to be reported."""

    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Yield nothing."""
        yield from ()


class ExpiryRepeats(_Harmless):
    """Teleport writes the expiry of one request again and again, each time as a record of its own."""

    NAME = "expiry_repeats"
    TOOL = "teleport"

    def suits(self, life: Life) -> bool:
        """It ends by itself."""
        return life.ending is Ending.EXPIRED

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Every five seconds, for minutes."""
        times = range(1, rng.randint(20, 60))
        return life.also(*(Step(life.seconds + 5.0 * number, Deed.EXPIRED) for number in times))


class RevokeEachOther(_Harmless):
    """Two requests for one assignment of Identity Center overlap. The end of the first takes the second's access too.

    The elevation tool gives it back, and takes it away again at the end of the second. Nobody held it too long.
    """

    NAME = "revoke_each_other"
    TOOL = "cloudtrail"

    def suits(self, life: Life) -> bool:
        """It takes an assignment."""
        return life.has(Deed.REVOKED)

    def story(self, rng: random.Random) -> tuple[Part, ...]:
        """The second is asked for while the first holds."""
        first = drawn(rng, self.TOOL, self.suits)
        ends, offset = first.when(Deed.CHECKED), first.when(Deed.REVOKED) * 0.5
        given = (Step(0.0, Deed.GRANTED), Step(ends - offset + 30, Deed.GRANTED))
        taken = (Step(ends - offset + 90, Deed.REVOKED), Step(ends - offset + 100, Deed.CHECKED))
        return Part(first), Part(replace(first, steps=(*given, *taken)), offset)


class LastsAsLongAsBoth(_Harmless):
    """Two reviews of hoop let one person into one connection. The first ends unseen, under cover of the second."""

    NAME = "lasts_as_long_as_both"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """It ends by itself."""
        return life.ending is Ending.EXPIRED

    def story(self, rng: random.Random) -> tuple[Part, ...]:
        """Both are found gone when the second has ended."""
        first, second, offset = two_of_one_access(rng, self.TOOL, self.suits)
        seen = Step(offset + second.when(Deed.CHECKED) - 0.1, Deed.CHECKED)
        return Part(first.without(Deed.CHECKED).also(seen)), Part(second, offset)


class ImportedTwice(_Harmless):
    """A file is imported once more after everything in it is over."""

    NAME = "imported_twice"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """It is granted."""
        return life.has(Deed.GRANTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """All lines again."""
        return life.also(Step(life.seconds + rng.uniform(20, 600), Deed.TOLD_AGAIN))


class CameAllAtOnce(_Harmless):
    """Everything about an access comes in one go when it is long over: its deadline has passed when it is heard of."""

    NAME = "came_all_at_once"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """It is granted."""
        return life.has(Deed.GRANTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Every line is on its way until after the end."""
        comes = life.seconds + rng.uniform(60, 600)
        steps = tuple(replace(step, delay=comes - step.after) for step in life.steps)
        return replace(life, steps=steps, checker=f"slow-{rng.getrandbits(48):012x}")


class ImportedHalfAgain(_Harmless):
    """The first part of a file is imported once more: the grant is told again, its removal is not."""

    NAME = "imported_half_again"
    TOOL = "hoop"

    def suits(self, life: Life) -> bool:
        """It is granted."""
        return life.has(Deed.GRANTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The lines up to the grant again, after its end."""
        again = life.when(Deed.GRANTED)
        return life.also(Step(again + 0.001, Deed.TOLD_AGAIN, delay=life.seconds + rng.uniform(60, 300)))


class ActsInBetween(_Harmless):
    """A program also tells what is done in its sessions; they go to another topic, with another counter."""

    NAME = "acts_in_between"
    TOOL = "own"

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Something is done within the session."""
        return life.also(Step(life.when(Deed.SESSION_ENDED) - 0.1, Deed.ACTED, "systemctl restart payments"))


class TakenBeforeGiven(_Harmless):
    """CloudTrail keeps no order: the record that takes an assignment away comes before the one that gave it.

    It is in a sandbox account, where nobody looks whether access is gone and the order to take it away is enough.
    """

    NAME = "taken_before_given"
    TOOL = "cloudtrail"

    def suits(self, life: Life) -> bool:
        """It takes an assignment."""
        return life.has(Deed.REVOKED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """The record of the assignment is on its way until it has been taken away."""
        late = life.when(Deed.REVOKED) - life.when(Deed.GRANTED) + rng.uniform(6, 200)
        steps = (replace(step, delay=late) if step.deed is Deed.GRANTED else step for step in life.steps)
        life = replace(life, steps=tuple(steps), place=f"sandbox-{rng.getrandbits(48):012x}")
        return life.without(Deed.CHECKED)


ODDITIES: tuple[type[Fault], ...] = (
    ExpiryRepeats,
    RevokeEachOther,
    LastsAsLongAsBoth,
    ImportedTwice,
    ImportedHalfAgain,
    ActsInBetween,
    CameAllAtOnce,
    TakenBeforeGiven,
)
