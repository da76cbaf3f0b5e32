"""What happens in a life, drawn at random for each tool. Every such life is in order: its access ends on time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from . import world
from .life import TOOLS, Deed, Ending, Life, Step, Tool

Plot = Callable[[random.Random], Life]


def imagine(rng: random.Random, tools: tuple[Tool, ...] = TOOLS) -> Iterator[Life]:
    """Yield lives without end; the same generator state gives the same lives."""
    while True:
        yield PLOTS[rng.choice(tools)](rng)


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
    endings = (Ending.EXPIRED, Ending.REVOKED, Ending.DENIED, Ending.CANCELLED, Ending.LAPSED)
    ending = rng.choices(endings, (60, 20, 10, 6, 4))[0]
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
        if rng.random() < 0.15:  # one request, and a certificate for each time that its holder signs in
            plan.add(Deed.RENEWED)
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
    if rng.random() < 0.2:
        plan.add(Deed.RENEWED)
        if leased:
            plan.add(Deed.LEASE_RENEWED)
    if leased:
        plan.add(Deed.LEASE_REVOKED)
        plan.add(Deed.LEASE_CHECKED)
    # What Vault ends by itself is not in its audit log, so a life that is to be seen ending ends by request.
    plan.add(Deed.REVOKED)
    return _life(rng, "vault", target, (), Ending.REVOKED, plan.now + rng.uniform(60, 180), plan)


def _hoop(rng: random.Random) -> Life:
    target = rng.choice(world.CONNECTIONS)
    ending = rng.choices((Ending.EXPIRED, Ending.REVOKED, Ending.DENIED, Ending.LAPSED), (60, 20, 14, 6))[0]
    reviewers = (rng.choice(world.REVIEWERS),)
    plan = _Plan(rng)
    plan.add(Deed.REQUESTED)
    ends = 0.0
    if ending is Ending.DENIED:
        plan.add(Deed.DENIED, rng.choice(world.DENIALS))
    elif ending is Ending.LAPSED:
        plan.add(Deed.LAPSED, within=(20, 40))
    else:
        plan.add(Deed.APPROVED)
        plan.add(Deed.GRANTED, within=(0.0, 0.2))
        opened = plan.now
        _session(rng, plan, target.actions, "block-truncate")
        if ending is Ending.REVOKED:
            plan.add(Deed.REVOKED)
            ends = plan.now + rng.uniform(60, 180)
        else:
            ends = plan.now = max(opened + rng.uniform(60, 150), plan.now + 1.0)
        # hoop writes nothing when the time is up: the company's checker looks whether the connection is shut.
        plan.add(Deed.CHECKED, within=(0.5, 3.0))
    return _life(rng, "hoop", target, reviewers, ending, ends, plan)


def _cloudtrail(rng: random.Random) -> Life:
    target = rng.choice(world.AWS_TARGETS)
    plan = _Plan(rng)
    if rng.random() < 0.08:
        plan.add(Deed.DENIED)
        return _life(rng, "cloudtrail", target, (), Ending.DENIED, 0.0, plan)
    plan.add(Deed.GRANTED)
    if target.kind == "assignment":
        plan.add(Deed.ROLE_TAKEN)
        for _ in range(rng.randint(1, 5)):
            plan.add(Deed.ACTED, rng.choice(target.actions))
        plan.add(Deed.REVOKED)
        plan.add(Deed.CHECKED, within=(1.0, 20.0))
        return _life(rng, "cloudtrail", target, (), Ending.REVOKED, plan.now, plan)
    if rng.random() < 0.5:
        _session(rng, plan, target.actions, "")
    else:
        plan.add(Deed.ACTED, rng.choice(target.actions))
    # The shortest that STS gives. Nothing is written when it is over.
    return _life(rng, "cloudtrail", target, (), Ending.EXPIRED, 900.0, plan)


def _own(rng: random.Random) -> Life:
    """Access that a program of the company's own gives and takes, through the client library."""
    target = rng.choice(world.TARGETS)
    plan = _Plan(rng)
    plan.add(Deed.GRANTED)
    plan.add(Deed.SESSION_STARTED)
    plan.add(Deed.SESSION_ENDED, within=(5, 40))
    plan.add(Deed.CHECKED)
    return _life(rng, "own", target, (rng.choice(world.REVIEWERS),), Ending.REVOKED, plan.now + 60, plan)


PLOTS: dict[Tool, Plot] = {
    "teleport": _teleport,
    "vault": _vault,
    "hoop": _hoop,
    "cloudtrail": _cloudtrail,
    "own": _own,
}


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
