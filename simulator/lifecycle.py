"""The plan of one access lifecycle: the person, the resource, and the steps with their times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Literal

from .company import Employee, Target

Tool = Literal["teleport", "vault", "hoop", "cloudtrail", "emit"]
"""The format of a record: that of a tool, or the JSON events that ``grantledger emit --stdin`` reads."""
TOOLS: tuple[Tool, ...] = ("teleport", "vault", "hoop", "cloudtrail")


class Ending(Enum):
    """How a lifecycle ends."""

    EXPIRED = auto()
    REVOKED = auto()
    DENIED = auto()
    CANCELLED = auto()
    REQUEST_EXPIRED = auto()


class StepKind(Enum):
    """The kind of one step of a lifecycle."""

    REQUESTED = auto()
    REVIEWED = auto()
    APPROVED = auto()
    DENIED = auto()
    CANCELLED = auto()
    REQUEST_EXPIRED = auto()
    GRANTED = auto()
    RENEWED = auto()
    SESSION_STARTED = auto()
    ACTION = auto()
    ACTION_DENIED = auto()
    ROLE_FETCHED = auto()
    """Credentials fetched in the access portal. They expire automatically."""
    LEASED = auto()
    LEASE_RENEWED = auto()
    LEASE_REVOKED = auto()
    LEASE_CHECKED = auto()
    """The access checker has found the account of the lease removed."""
    SESSION_ENDED = auto()
    REVOKED = auto()
    EXPIRED = auto()
    CHECKED = auto()
    """The access checker has found the access removed."""
    FALSELY_REMOVED = auto()
    """A program that has nothing to do with the access reports that it was removed."""
    FALSELY_EXTENDED = auto()
    """Such a program reports that it was extended."""
    SENT_AGAIN = auto()
    """All previous records are sent again, as a repeated import does."""


CHECKS = (StepKind.CHECKED, StepKind.LEASE_CHECKED)
"""The steps of the access checker."""
CLAIMS = (StepKind.FALSELY_REMOVED, StepKind.FALSELY_EXTENDED)
"""The steps of a program that reports about access of others."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        after: seconds from the start of the lifecycle.
        detail: details of the step, such as the statement or the reason.
        delay: seconds by which its record is delivered later than usual.
    """

    after: float
    kind: StepKind
    detail: str = ""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One lifecycle of access. ``steps`` are in order of time.

    Attributes:
        grant_ends: the deadline, in seconds from the start.
        instance: the installation of the tool, if it is not the usual one.
        clock_ahead: seconds by which the tool's clock is ahead.
        checker: the instance of the access checker, if it is not the usual one.
        intruder: the instance of the program that takes the steps in ``CLAIMS``, and whether it names the source.
        tenant: the tenant, for the company's own programs.
        shared_id: the grant's id, if another lifecycle has the same one.
    """

    tool: Tool
    person: Employee
    reviewers: tuple[Employee, ...]
    target: Target
    reason: str
    ticket: str
    ending: Ending
    grant_ends: float
    steps: tuple[Step, ...]
    instance: str = ""
    clock_ahead: float = 0.0
    checker: str = ""
    intruder: tuple[str, bool] = ("", True)
    tenant: str = "default"
    shared_id: str = ""

    @property
    def seconds(self) -> float:
        """The duration from the first to the last step."""
        return self.steps[-1].after

    def has(self, *kinds: StepKind) -> bool:
        """Return whether it has a step of each kind."""
        return {step.kind for step in self.steps}.issuperset(kinds)

    def when(self, kind: StepKind) -> float:
        """Return the time of the first step of a kind."""
        return next(step.after for step in self.steps if step.kind is kind)

    def without(self, *kinds: StepKind) -> Lifecycle:
        """Return a copy without the steps of these kinds."""
        return replace(self, steps=tuple(step for step in self.steps if step.kind not in kinds))

    def adding(self, *steps: Step) -> Lifecycle:
        """Return a copy with more steps."""
        return replace(self, steps=tuple(sorted((*self.steps, *steps), key=lambda step: step.after)))

    def changing(self, kind: StepKind, *, detail: str = "", delay: float = 0.0) -> Lifecycle:
        """Return a copy in which the steps of a kind have this detail and delay."""
        changed = (replace(step, detail=detail, delay=delay) if step.kind is kind else step for step in self.steps)
        return replace(self, steps=tuple(changed))

    def of(self, person: Employee) -> Lifecycle:
        """Return a copy for another person, who also becomes the reviewer if the tool needs one and there is none."""
        reviewers = self.reviewers or ((person,) if self.tool in ("teleport", "hoop") else ())
        return replace(self, person=person, reviewers=reviewers)
