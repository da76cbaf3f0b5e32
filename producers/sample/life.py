"""What happens in one life of access, as a pure plan: no clock, no format, no Kafka."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from . import world

Tool = Literal["teleport", "vault"]
TOOLS: tuple[Tool, ...] = ("teleport", "vault")


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
    SESSION_STARTED = "session_started"
    ACTED = "acted"
    REFUSED = "refused"
    LEASED = "leased"
    LEASE_REVOKED = "lease_revoked"
    SESSION_ENDED = "session_ended"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens. ``after``: seconds from the beginning of the life; ``detail``: what exactly."""

    after: float
    deed: Deed
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """One life, from the first request to the end of the access.

    ``grant_ends``: seconds from the beginning after which the access must have ended, also where it ends earlier.
    ``steps`` are in order of time.
    """

    tool: Tool
    person: world.Person
    reviewers: tuple[world.Person, ...]
    target: world.Target
    reason: str
    ticket: str
    ending: Ending
    grant_ends: float
    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """How long the whole life takes."""
        return self.steps[-1].after


def imagine(rng: random.Random, tools: tuple[Tool, ...] = TOOLS) -> Iterator[Life]:
    """Yield lives without end; the same generator state gives the same lives."""
    while True:
        tool = rng.choice(tools)
        yield _teleport(rng) if tool == "teleport" else _vault(rng)


class _Plan:
    """Steps one after the other, each some seconds later."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.now = 0.0
        self.steps: list[Step] = []

    def add(self, deed: Deed, detail: str = "", *, within: tuple[float, float] = (0.5, 4.0)) -> None:
        if self.steps:
            self.now = round(self.now + self._rng.uniform(*within), 3)
        self.steps.append(Step(self.now, deed, detail))


def _teleport(rng: random.Random) -> Life:
    target = rng.choice(world.TARGETS)
    ending = rng.choices(
        (Ending.EXPIRED, Ending.REVOKED, Ending.DENIED, Ending.CANCELLED, Ending.LAPSED), (60, 20, 10, 6, 4)
    )[0]
    reviewers = tuple(rng.sample(world.REVIEWERS, 2 if rng.random() < 0.3 else 1))
    plan = _Plan(rng)
    plan.add(Deed.REQUESTED)
    ends = 0.0
    if ending is Ending.DENIED:
        plan.add(Deed.DENIED, rng.choice(world.DENIALS))
    elif ending is Ending.CANCELLED:
        plan.add(Deed.CANCELLED)
    elif ending is Ending.LAPSED:
        plan.add(Deed.LAPSED, within=(20, 40))
    else:
        if len(reviewers) == 2:
            plan.add(Deed.REVIEWED)
        plan.add(Deed.APPROVED)
        plan.add(Deed.GRANTED)
        opened = plan.now
        _session(rng, plan, target.actions, "kubectl delete secret" if target.kind == "kube_cluster" else "")
        if ending is Ending.REVOKED:
            plan.add(Deed.REVOKED)
            ends = plan.now + rng.uniform(60, 180)
        else:
            ends = max(opened + rng.uniform(30, 120), plan.now + 1.0)
            plan.now = ends
            plan.add(Deed.EXPIRED, within=(0.2, 1.5))
    return _life(rng, "teleport", target, reviewers, ending, ends, plan)


def _session(rng: random.Random, plan: _Plan, actions: tuple[str, ...], refused: str) -> None:
    plan.add(Deed.SESSION_STARTED)
    for _ in range(rng.randint(1, 6)):
        plan.add(Deed.ACTED, rng.choice(actions))
    if refused and rng.random() < 0.2:
        plan.add(Deed.REFUSED, refused)
    plan.add(Deed.SESSION_ENDED)


def _vault(rng: random.Random) -> Life:
    target = rng.choice(world.TARGETS)
    plan = _Plan(rng)
    if rng.random() < 0.08:
        plan.add(Deed.DENIED)
        return _life(rng, "vault", target, (), Ending.DENIED, 0.0, plan)
    plan.add(Deed.GRANTED)
    leased = rng.random() < 0.6
    if leased:
        plan.add(Deed.LEASED, rng.choice(world.VAULT_ROLES))
    for _ in range(rng.randint(1, 5)):
        plan.add(Deed.ACTED, rng.choice(world.VAULT_PATHS))
    if rng.random() < 0.2:
        plan.add(Deed.REFUSED, rng.choice(world.VAULT_FORBIDDEN))
    if leased:
        plan.add(Deed.LEASE_REVOKED)
    # What Vault ends by itself is not in its audit log, so a life that is to be seen ending ends by request.
    plan.add(Deed.REVOKED)
    return _life(rng, "vault", target, (), Ending.REVOKED, plan.now + rng.uniform(60, 180), plan)


def _life(  # noqa: PLR0917 - the members of a life, in their order
    rng: random.Random,
    tool: Tool,
    target: world.Target,
    reviewers: tuple[world.Person, ...],
    ending: Ending,
    ends: float,
    plan: _Plan,
) -> Life:
    person = rng.choice(world.PEOPLE)
    ticket = f"OPS-{rng.randint(1000, 9999)}"
    return Life(tool, person, reviewers, target, rng.choice(world.REASONS), ticket, ending, ends, tuple(plan.steps))
