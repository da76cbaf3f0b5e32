"""The rules: what is wrong with a grant, a session or a source, given everything reported so far. No clock, no Kafka.

Each rule yields candidates: from when on something is wrong, and when that ended. What is a finding at a given time
follows from these two. A fact that arrives later may end a finding; none makes it as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from .episodes import NEVER, Episode
from .facts import Decision
from .life import NOBODYS_NAMES, Grant, Request, Session
from .policy import SECOND, Limits, Rule

REVOKE: Literal["revoke"] = "revoke"
"""No finding: what the enforcers are told to do."""


class Candidate(NamedTuple):
    """Something that is, was or will be wrong.

    Attributes:
        key: what it is about: grant, session, request, event or source.
        deadline: with rule and key its identity; the deadline concerned, or 0 where there is none.
        opens: from when on it is wrong; nothing is said before.
        ends: since when it is not wrong any more, or ``NEVER``.
        told: the evidence, or a function and its arguments that give it: most candidates are never reported.
    """

    rule: Rule | Literal["revoke"]
    key: str
    deadline: int
    opens: int
    ends: int
    told: Mapping[str, object] | tuple[Any, ...]

    @property
    def real(self) -> bool:
        """Whether it ever is wrong."""
        return self.opens < self.ends

    @property
    def evidence(self) -> Mapping[str, object]:
        """What a person needs to know."""
        if not isinstance(self.told, tuple):
            return self.told
        found: Mapping[str, object] = self.told[0](*self.told[1:])
        return found


def on_grant(
    grant: Grant, request: Request | None, limits: Limits, held_until: Callable[[int], int], *, alone: bool = False
) -> Iterator[Candidate]:
    """Yield what is wrong with a grant, and what enforcers are to do about it.

    Args:
        request: the request it came from, where known.
        held_until: until when the grants of the same access, taken together, hold it without a break from a time on.
        alone: no other grant of the same access is known.
    """
    for episode in grant.episodes(limits):
        removed = episode.removed(limits)
        over = min(removed, episode.superseded)
        due = _due(episode, limits)
        if due < over:  # as long as one more grant of this access holds, the access may be there
            due = held_until(due)
        if due < NEVER:
            told = (_lateness, grant, episode, limits, over)
            yield Candidate("overdue", grant.grant_id, episode.name, due, over, told)
            # Before the grace is over only where no other grant can cover the access meanwhile.
            if alone and (limits.revoke == "deadline" or (limits.revoke == "auto" and not episode.granted.native)):
                due = max(episode.deadline, episode.granted.append)
            if limits.revoke != "never":
                yield Candidate(REVOKE, grant.grant_id, episode.name, due, over, (_who, grant))
        if episode.removals:
            yield from _unconfirmed(grant, episode, limits, over)
        if limits.max_seconds is not None and episode.granted.ends is not None:
            yield from _too_long(grant, episode, limits.max_seconds, over)
        if episode.deadline == NEVER:
            evidence = {"index": episode.granted.index}
            yield _of("no_deadline", grant, episode.name, (episode.granted.append, over), evidence)
        if limits.approvals and not episode.granted.extended:
            yield from _no_approval(grant, episode, request, limits, removed)
    # Some tools call request and grant the same: then both say the same, the one that came first.
    heard = grant.decisions
    if request is not None and grant.request_id == grant.grant_id and request.decisions:
        heard = tuple(sorted(heard + request.decisions))
    if heard:
        yield from _self_approved(grant.grant_id, grant.person, heard)


def on_request(request: Request) -> Iterator[Candidate]:
    """Yield what is wrong with a request."""
    yield from _self_approved(request.request_id, request.person, request.decisions)


def on_session(
    session: Session, grant: Grant | None, limits: Limits, grant_limits: Limits | None
) -> Iterator[Candidate]:
    """Yield what is wrong with a session.

    What was used without a grant was so, however soon it ended.

    Args:
        limits: those of the session's own resource.
        grant_limits: those of the grant that it names, where that is known.
    """
    if session.started == NEVER:
        return
    began = min(session.started, session.ended)  # also where we heard of its end first
    latest = began + _span((grant_limits or limits).approval_wait_seconds)  # to hear of a grant that was there
    opens = max(session.started, latest)
    if not session.grant_id:
        if limits.sessions_need_grant:
            yield _unfounded(session, opens, {"named": "no grant"})
        return
    ends = list(_ends_of(grant, grant_limits)) if grant is not None and grant_limits is not None else []
    covering = [(begin, end, deadline) for begin, end, deadline in ends if begin <= latest and began <= end]
    if not covering:
        yield _unfounded(session, opens, {"grant": session.grant_id, "known": bool(ends)})
        return
    _, end, deadline = min(covering)  # what is given after that has ended was not there in between
    if end < NEVER:
        evidence = {"grant": session.grant_id, "session_started": session.started}
        yield Candidate("session_outlived_grant", session.session_id, deadline, end, session.ended, evidence)


def _unfounded(session: Session, opens: int, evidence: Mapping[str, object]) -> Candidate:
    ends = max(session.ended, opens + 1)
    return Candidate("used_without_grant", session.session_id, 0, opens, ends, evidence)


def cover(episode: Episode, limits: Limits) -> tuple[int, int]:
    """Return from when until when an episode lets its subject in, rightly."""
    end = min(episode.removed(limits), episode.superseded, _due(episode, limits))
    return episode.granted.append, end


def _ends_of(grant: Grant, limits: Limits) -> Iterator[tuple[int, int, int]]:
    """Yield (from, until, deadline) of each stretch in which sessions may run: episodes that follow at once are one."""
    stretch: tuple[int, int, int] | None = None
    for episode in sorted(grant.episodes(limits), key=lambda one: one.granted.index):
        removed = episode.removed(limits)
        end = min(_later(removed, limits), _due(episode, limits))
        deadline = 0 if episode.deadline == NEVER else episode.deadline
        begin = episode.granted.append
        if stretch is None or begin > stretch[1]:
            if stretch is not None:
                yield stretch
            stretch = (begin, end, deadline)
        elif not episode.late or end > stretch[1]:  # what was over when it was told ends nothing else
            stretch = (stretch[0], end, deadline)
    if stretch is not None:
        yield stretch


def _who(grant: Grant) -> dict[str, object]:
    access = grant.access
    return {"subject": access.subject, "resource": access.resource, "entitlement": access.entitlement}


def _lateness(grant: Grant, episode: Episode, limits: Limits, over: int) -> dict[str, object]:
    evidence = {**_who(grant), "removal": episode.best_evidence or "not reported"}
    if over < NEVER:
        evidence["late_seconds"] = (min(over, episode.left(limits)) - episode.deadline) / SECOND
    if episode.name != episode.deadline:
        evidence["deadline"] = episode.deadline
    return evidence


def _unconfirmed(grant: Grant, episode: Episode, limits: Limits, over: int) -> Iterator[Candidate]:
    weak = next((one for one in episode.removals if one.evidence not in limits.removal), None)
    if weak is not None:
        opens = max(weak.append, episode.granted.append) + _span(limits.confirm_wait_seconds)
        yield _of("removal_unconfirmed", grant, episode.name, (opens, over), {"evidence": weak.evidence})


def _too_long(grant: Grant, episode: Episode, longest: float, over: int) -> Iterator[Candidate]:
    begin = min(episode.first.starts, episode.first.append)
    if episode.deadline > begin + _span(longest):
        evidence = {"allowed_seconds": longest, "seconds": (episode.deadline - begin) / SECOND}
        yield _of("extended_beyond_policy", grant, episode.name, (episode.granted.append, over), evidence)


def _no_approval(
    grant: Grant, episode: Episode, request: Request | None, limits: Limits, removed: int
) -> Iterator[Candidate]:
    own = {name.casefold() for name in grant.person}
    heard = sorted(grant.decisions + (request.decisions if request is not None else ()))
    reviewers: set[str] = set()
    enough = NEVER
    for _, append, decision in heard:
        reviewer = decision.reviewer.casefold()
        if decision.decision == "approved" and reviewer not in own and reviewer not in NOBODYS_NAMES:
            reviewers.add(reviewer)
            if len(reviewers) >= limits.approvals:
                enough = append
                break
    opens = episode.granted.append + _span(limits.approval_wait_seconds)
    evidence = {"needed": limits.approvals, "heard": sorted(reviewers)}
    yield _of("no_approval", grant, episode.granted.append, (opens, min(enough, removed)), evidence)


def _self_approved(
    key: str, person: tuple[str, ...], decisions: tuple[tuple[int, int, Decision], ...]
) -> Iterator[Candidate]:
    own = {name.casefold() for name in person} - set(NOBODYS_NAMES)
    for _, append, decision in decisions:
        if decision.decision == "approved" and decision.reviewer.casefold() in own:
            evidence = {"reviewer": decision.reviewer, "forced": decision.forced}
            yield Candidate("self_approved", key, 0, append, NEVER, evidence)
            return


def _of(
    rule: Rule | Literal["revoke"], grant: Grant, deadline: int, span: tuple[int, int], evidence: Mapping[str, object]
) -> Candidate:
    return Candidate(rule, grant.grant_id, deadline, *span, {**_who(grant), **evidence})


def _due(episode: Episode, limits: Limits) -> int:
    """Return the last moment at which a removal is on time: of a grant heard of late, counted from then."""
    return _later(max(episode.deadline, episode.granted.append), limits)


def _later(time: int, limits: Limits) -> int:
    return NEVER if time >= NEVER else time + _span(limits.grace_seconds)


def _span(seconds: float) -> int:
    return int(seconds * SECOND)
