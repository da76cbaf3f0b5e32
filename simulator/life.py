"""One life of access as a pure plan: who, what, and which steps when. No clock, no format, no Kafka."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from .world import Person, Target

Tool = Literal["teleport", "vault", "hoop", "cloudtrail", "own"]
TOOLS: tuple[Tool, ...] = ("teleport", "vault", "hoop", "cloudtrail")
"""The tools whose lives are told. What the company's own programs say (``own``) stands among them."""


class Ending(Enum):
    """How a life ends."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


class Deed(Enum):
    """What can happen in a life."""

    REQUESTED = "requested"
    REVIEWED = "reviewed"
    APPROVED = "approved"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"
    GRANTED = "granted"
    RENEWED = "renewed"
    SESSION_STARTED = "session_started"
    ACTED = "acted"
    REFUSED = "refused"
    ROLE_TAKEN = "role_taken"
    """Credentials fetched in the access portal, which end by themselves."""
    LEASED = "leased"
    LEASE_RENEWED = "lease_renewed"
    LEASE_REVOKED = "lease_revoked"
    LEASE_CHECKED = "lease_checked"
    """The company's own checker has looked and found the lease's account gone."""
    SESSION_ENDED = "session_ended"
    REVOKED = "revoked"
    EXPIRED = "expired"
    CHECKED = "checked"
    """The checker has found the access gone."""
    TOLD_AGAIN = "told_again"
    """Every line so far is sent once more, as by an import that is repeated."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens.

    Attributes:
        after: seconds from the beginning of the life.
        detail: what exactly.
        delay: seconds that its record is on its way longer than usual.
    """

    after: float
    deed: Deed
    detail: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Life:
    """One life, from the first request to the end of the access. ``steps`` are in order of time.

    Attributes:
        grant_ends: seconds from the beginning after which the access must have ended, also where it ends earlier.
        place: the installation that tells it, where that is one of its own.
        fast: seconds by which the tool's clock is ahead.
        checker: the checker that looks after it, where that is one of its own.
    """

    tool: Tool
    person: Person
    reviewers: tuple[Person, ...]
    target: Target
    reason: str
    ticket: str
    ending: Ending
    grant_ends: float
    steps: tuple[Step, ...]
    place: str = ""
    fast: float = 0.0
    checker: str = ""

    @property
    def seconds(self) -> float:
        """How long the whole life takes."""
        return self.steps[-1].after

    def has(self, *deeds: Deed) -> bool:
        """Whether all of these happen in it."""
        return {step.deed for step in self.steps}.issuperset(deeds)

    def when(self, deed: Deed) -> float:
        """Return when a deed happens first."""
        return next(step.after for step in self.steps if step.deed is deed)

    def without(self, *deeds: Deed) -> Life:
        """Return the same life in which these do not happen."""
        return replace(self, steps=tuple(step for step in self.steps if step.deed not in deeds))

    def also(self, *steps: Step) -> Life:
        """Return the same life with more steps, each at its time."""
        return replace(self, steps=tuple(sorted((*self.steps, *steps), key=lambda step: step.after)))
