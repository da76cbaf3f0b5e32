"""What every planted fault is: a story of one or more lives, and what a watch must say of it, no more and no less.

What must be said is worked out here from what the tools wrote and when it arrived, by the definitions alone. Nothing of
the watch is used: its answer is compared with this one.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

from .life import Deed, Life, Tool
from .plots import PLOTS
from .policy import GRACE, SECOND
from .teller import Teller
from .world import Person


class Expected(NamedTuple):
    """A finding that the watch must report under the policy of ``policy.py``. Times are microseconds since 1970.

    Attributes:
        rule: its rule.
        key: what it is about.
        deadline: the deadline concerned; with rule and key it identifies the finding.
        opens: from when on it is so; a watch says it at the first look after this time.
        ends: since when it is not so any more, None where that never comes.
        late: seconds by which the access outlived its deadline, where the fault is about that and it did end.
        fault: which fault it comes from.
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


class Moment(NamedTuple):
    """A line that was written and arrived: the time in the record, and the broker's."""

    deed: Deed
    occurred: int
    append: int

    @property
    def ahead(self) -> int:
        """By how much the writer's clock was ahead of the broker's."""
        return max(0, self.occurred - self.append)


@dataclass(slots=True)
class Told:
    """One life as it was told, with every line's times, in the order in which they were written."""

    teller: Teller
    moments: list[Moment] = field(default_factory=list)

    def all(self, deed: Deed) -> list[Moment]:
        """Return the lines about a deed."""
        return [moment for moment in self.moments if moment.deed is deed]

    def last(self, deed: Deed) -> Moment:
        """Return the last line about a deed: where a tool writes two, the one that counts."""
        return self.all(deed)[-1]

    def maybe(self, deed: Deed) -> Moment | None:
        """Return the last line about a deed, None where there is none."""
        return next(reversed(self.all(deed)), None)


class Part(NamedTuple):
    """One life of a story. ``offset``: how many seconds after the beginning of the story it begins."""

    life: Life
    offset: float = 0.0


def played_by(life: Life, person: Person) -> Life:
    """Return the life with its person, who is also the reviewer where the story names none and the tool has some."""
    reviewers = life.reviewers or ((person,) if life.tool in ("teleport", "hoop") else ())
    return replace(life, person=person, reviewers=reviewers)


class Fault(ABC):
    """Something that goes wrong, as it has gone wrong in real installations. Its docstring tells the story."""

    NAME: ClassVar[str]
    TOOL: ClassVar[Tool]

    def story(self, rng: random.Random) -> tuple[Part, ...]:
        """Return the lives of the story. All of them are the same person's."""
        return (Part(self.alter(rng, drawn(rng, self.TOOL, self.suits))),)

    def suits(self, life: Life) -> bool:
        """Whether the fault can happen in a life."""
        return life.has(Deed.GRANTED)

    def alter(self, rng: random.Random, life: Life) -> Life:
        """Return the life with the fault in it."""
        return life

    @abstractmethod
    def expects(self, told: Sequence[Told]) -> Iterator[Expected]:
        """Yield what the watch must report, given the lives as they were told."""


def drawn(rng: random.Random, tool: Tool, suits: Callable[[Life], bool]) -> Life:
    """Return a life of a tool that suits. There must be such lives."""
    return next(life for life in iter(lambda: PLOTS[tool](rng), None) if life is not None and suits(life))


def two_of_one_access(rng: random.Random, tool: Tool, suits: Callable[[Life], bool]) -> tuple[Life, Life, float]:
    """Return two lives with one target, and after how many seconds the second begins. It outlasts the first."""
    first = drawn(rng, tool, lambda life: suits(life) and life.grant_ends < 110)
    second = drawn(rng, tool, lambda life: suits(life) and life.grant_ends > first.grant_ends + 15)
    return first, replace(second, target=first.target), rng.uniform(5, 20)


def overdue(key: str, deadline: int, heard: int, gone: Moment | None) -> Expected:
    """Return the finding of access that outlived its deadline.

    Args:
        key: the grant.
        deadline: when it must have ended.
        heard: when the grant became known.
        gone: the line that proves the removal, where there is one.
    """
    opens = max(deadline, heard) + GRACE
    if gone is None:
        return Expected("overdue", key, deadline, opens)
    late = (min(gone.occurred, gone.append) - deadline) / SECOND
    return Expected("overdue", key, deadline, opens, gone.append, late)
