"""Random lifecycles for each tool. All of them are in order: their access ends on time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from . import company
from .lifecycle import TOOLS, Ending, Lifecycle, Step, StepKind, Tool


def lifecycles(rng: random.Random, tools: tuple[Tool, ...] = TOOLS) -> Iterator[Lifecycle]:
    """Yield lifecycles without end; the same generator state gives the same lifecycles."""
    while True:
        yield GENERATORS[rng.choice(tools)](rng)


class _Plan:
    """A sequence of steps, each some seconds after the previous one."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.now = 0.0
        self.steps: list[Step] = []

    def add(self, kind: StepKind, detail: str = "", *, within: tuple[float, float] = (0.5, 4.0)) -> None:
        if self.steps:
            self.now = round(self.now + self._rng.uniform(*within), 3)
        self.steps.append(Step(self.now, kind, detail))


def _teleport(rng: random.Random) -> Lifecycle:
    target = rng.choice(company.TARGETS)
    endings = (Ending.EXPIRED, Ending.REVOKED, Ending.DENIED, Ending.CANCELLED, Ending.REQUEST_EXPIRED)
    ending = rng.choices(endings, (60, 20, 10, 6, 4))[0]
    reviewers = tuple(rng.sample(company.REVIEWERS, 2 if rng.random() < 0.3 else 1))
    plan = _Plan(rng)
    plan.add(StepKind.REQUESTED)
    ends = 0.0
    if not _ends_ungranted(rng, plan, ending):
        if len(reviewers) == 2:
            plan.add(StepKind.REVIEWED)
        plan.add(StepKind.APPROVED)
        plan.add(StepKind.GRANTED)
        opened = plan.now
        if rng.random() < 0.15:  # another certificate for the same request, at the next sign-in
            plan.add(StepKind.RENEWED)
        _session(rng, plan, target.actions, "kubectl delete secret" if target.kind == "kube_cluster" else "")
        if ending is Ending.REVOKED:
            plan.add(StepKind.REVOKED)
            ends = plan.now + rng.uniform(60, 180)
        else:
            ends = max(opened + rng.uniform(30, 120), plan.now + 1.0)
            plan.now = ends
            plan.add(StepKind.EXPIRED, within=(0.2, 1.5))
    return _lifecycle(rng, "teleport", target, reviewers, ending, ends, plan)


def _ends_ungranted(rng: random.Random, plan: _Plan, ending: Ending) -> bool:
    """Add the step that ends a request without a grant; return whether there is one."""
    if ending is Ending.DENIED:
        plan.add(StepKind.DENIED, rng.choice(company.DENIALS))
    elif ending is Ending.CANCELLED:
        plan.add(StepKind.CANCELLED)
    elif ending is Ending.REQUEST_EXPIRED:
        plan.add(StepKind.REQUEST_EXPIRED, within=(20, 40))
    else:
        return False
    return True


def _session(rng: random.Random, plan: _Plan, actions: tuple[str, ...], refused: str) -> None:
    plan.add(StepKind.SESSION_STARTED)
    for _ in range(rng.randint(1, 6)):
        plan.add(StepKind.ACTION, rng.choice(actions))
    if refused and rng.random() < 0.2:
        plan.add(StepKind.ACTION_DENIED, refused)
    plan.add(StepKind.SESSION_ENDED)


def _vault(rng: random.Random) -> Lifecycle:
    target = rng.choice(company.TARGETS)
    plan = _Plan(rng)
    if rng.random() < 0.08:
        plan.add(StepKind.DENIED)
        return _lifecycle(rng, "vault", target, (), Ending.DENIED, 0.0, plan)
    plan.add(StepKind.GRANTED)
    leased = rng.random() < 0.6
    if leased:
        plan.add(StepKind.LEASED, rng.choice(company.VAULT_ROLES))
    for _ in range(rng.randint(1, 5)):
        plan.add(StepKind.ACTION, rng.choice(company.VAULT_PATHS))
    if rng.random() < 0.2:
        plan.add(StepKind.ACTION_DENIED, rng.choice(company.VAULT_FORBIDDEN))
    if rng.random() < 0.2:
        plan.add(StepKind.RENEWED)
        if leased:
            plan.add(StepKind.LEASE_RENEWED)
    if leased:
        plan.add(StepKind.LEASE_REVOKED)
        plan.add(StepKind.LEASE_CHECKED)
    # Vault's audit log does not show what it revokes automatically, so the token is revoked by request.
    plan.add(StepKind.REVOKED)
    return _lifecycle(rng, "vault", target, (), Ending.REVOKED, plan.now + rng.uniform(60, 180), plan)


def _hoop(rng: random.Random) -> Lifecycle:
    target = rng.choice(company.CONNECTIONS)
    ending = rng.choices((Ending.EXPIRED, Ending.REVOKED, Ending.DENIED, Ending.REQUEST_EXPIRED), (60, 20, 14, 6))[0]
    reviewers = (rng.choice(company.REVIEWERS),)
    plan = _Plan(rng)
    plan.add(StepKind.REQUESTED)
    ends = 0.0
    if not _ends_ungranted(rng, plan, ending):
        plan.add(StepKind.APPROVED)
        plan.add(StepKind.GRANTED, within=(0.0, 0.2))
        opened = plan.now
        _session(rng, plan, target.actions, "block-truncate")
        if ending is Ending.REVOKED:
            plan.add(StepKind.REVOKED)
            ends = plan.now + rng.uniform(60, 180)
        else:
            ends = plan.now = max(opened + rng.uniform(60, 150), plan.now + 1.0)
        # hoop records no expiry: the access checker looks whether the connection is closed.
        plan.add(StepKind.CHECKED, within=(0.5, 3.0))
    return _lifecycle(rng, "hoop", target, reviewers, ending, ends, plan)


def _cloudtrail(rng: random.Random) -> Lifecycle:
    target = rng.choice(company.AWS_TARGETS)
    plan = _Plan(rng)
    if rng.random() < 0.08:
        plan.add(StepKind.DENIED)
        return _lifecycle(rng, "cloudtrail", target, (), Ending.DENIED, 0.0, plan)
    plan.add(StepKind.GRANTED)
    if target.kind == "assignment":
        plan.add(StepKind.ROLE_FETCHED)
        for _ in range(rng.randint(1, 5)):
            plan.add(StepKind.ACTION, rng.choice(target.actions))
        plan.add(StepKind.REVOKED)
        plan.add(StepKind.CHECKED, within=(1.0, 20.0))
        return _lifecycle(rng, "cloudtrail", target, (), Ending.REVOKED, plan.now, plan)
    if rng.random() < 0.5:
        _session(rng, plan, target.actions, "")
    else:
        plan.add(StepKind.ACTION, rng.choice(target.actions))
    # The shortest duration of STS. AWS records no expiry.
    return _lifecycle(rng, "cloudtrail", target, (), Ending.EXPIRED, 900.0, plan)


def _deploy_bot(rng: random.Random) -> Lifecycle:
    """Return access that a program grants and removes, reported with the client library."""
    target = rng.choice(company.TARGETS)
    plan = _Plan(rng)
    plan.add(StepKind.GRANTED)
    plan.add(StepKind.SESSION_STARTED)
    plan.add(StepKind.SESSION_ENDED, within=(5, 40))
    plan.add(StepKind.CHECKED)
    return _lifecycle(rng, "emit", target, (rng.choice(company.REVIEWERS),), Ending.REVOKED, plan.now + 60, plan)


GENERATORS: dict[Tool, Callable[[random.Random], Lifecycle]] = {
    "teleport": _teleport,
    "vault": _vault,
    "hoop": _hoop,
    "cloudtrail": _cloudtrail,
    "emit": _deploy_bot,
}


def _lifecycle(  # noqa: PLR0917 - in the order of the fields
    rng: random.Random,
    tool: Tool,
    target: company.Target,
    reviewers: tuple[company.Employee, ...],
    ending: Ending,
    ends: float,
    plan: _Plan,
) -> Lifecycle:
    person = rng.choice(company.PEOPLE)
    ticket = f"OPS-{rng.randint(1000, 9999)}"
    return Lifecycle(
        tool, person, reviewers, target, rng.choice(company.REASONS), ticket, ending, ends, tuple(plan.steps)
    )
