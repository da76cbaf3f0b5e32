"""The one state of a grant, as a sentence. Of a grant past its end, the policy on record and the watch decide which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ..base.times import micros_of
from ..processors.access import Access, Source, to_datetime
from .grant_command import grant_command
from .grant_revocations import PATIENCE, Revocation
from .grants import ENDED, PAST_END, UNRESOLVED, due_of
from .output import Output, Row, span

if TYPE_CHECKING:
    from ..processors.watch_policy import GrantLimits
    from ..runtime.watch_liveness import WatchLiveness


@dataclass(frozen=True, slots=True)
class PastEnd:
    """Why a grant that is past its end, and has not ended under the policy, is not overdue.

    Attributes:
        since: the end of the grace; the latest time at which a watch that judges nothing is known to have judged.
    """

    kind: Literal["inside_grace", "closed", "watch_down", "watch_hangs", "no_policy", "watch_unknown", "judged_soon"]
    since: datetime | None = None


def limits_in(policy: str, row: Row) -> GrantLimits | None:
    """Return the limits of a grant by the watch policy on record; None if there is none."""
    from ..processors.watch_policy import (  # needs Arrow: most grants are in a state without it
        EffectivePolicy,
        WatchPolicy,
    )

    try:
        found = WatchPolicy.model_validate_json(policy)
    except ValueError:  # none, or one that another version wrote
        return None
    names = ("tenant", "subject_id", "resource_kind", "resource_id", "entitlement")
    access = Access(*(row[name] for name in names))
    source = Source(row["source_system"], row["source_instance"])
    return EffectivePolicy(found).limits(source, access, row["resource_environment"])


def policy_end(row: Row, limits: GrantLimits | None) -> datetime | None:
    """Return when access must end at the latest by ``max_seconds`` of the policy; None if it does not limit it."""
    begin: datetime | None = row["stretch_recorded_at"]
    if limits is None or limits.max_seconds is None or begin is None:
        return None
    if row["deadline"] is not None:  # the tool gives an end: as the watch counts
        begin = min(begin, row["starts_at"] or begin)
    return to_datetime(limits.longest_end(micros_of(begin)))


def limit_text(output: Output, row: Row, limits: GrantLimits | None) -> str:
    """Return the limit of the policy on how long access lasts; empty without one."""
    end = policy_end(row, limits)
    if end is None or limits is None or limits.max_seconds is None:
        return ""
    text = f"{span(limits.max_seconds)} by the watch policy (max_seconds), until {output.moment(end)}"
    if row["deadline"] is None:
        return f"{text}: the deadline, because the tool gives none"
    return f"{text}: the deadline is later" if row["deadline"] > end else text


def past_end(row: Row, limits: GrantLimits | None, watch: WatchLiveness | None, now: datetime) -> PastEnd | None:
    """Return why a grant is not overdue although its end has passed; None for a grant in another state."""
    if row["state"] != PAST_END:
        return None
    if row["finding"] == "closed":
        return PastEnd("closed")
    if limits is None:
        return PastEnd("no_policy")
    reported = micros_of(row["deadline_recorded_at"])
    grace_ends = to_datetime(limits.overdue_after(micros_of(due_of(row) or now), reported))
    if now <= grace_ends:
        return PastEnd("inside_grace", grace_ends)
    if watch is None or watch.state == "judges":
        return PastEnd("judged_soon")
    kinds: dict[str, Literal["watch_down", "watch_hangs", "watch_unknown"]] = {
        "down": "watch_down", "hangs": "watch_hangs", "unknown": "watch_unknown",
    }  # fmt: skip
    return PastEnd(kinds[watch.state], watch.judged_until)


def state_text(output: Output, state: Row, ended: PastEnd | None) -> str:
    """Return the state of a grant: exactly one, and the evidence of its removal."""
    name, evidence = state["state"], state["removal_evidence"]
    if name == "removed":
        return _removed(output, state)
    if name == "overdue" and state["removed_at"] is not None:
        return f"overdue: the finding is not resolved yet; {_removed(output, state)}"
    known = "no removal on record" if evidence == "none" else f"best evidence of a removal: {evidence}"
    if name == "overdue":
        return f"overdue, found {output.moment(state['found_at'])}; {known}"
    if ended is not None:
        return f"past its end, {_past_end_text(output, state, ended)}; {known}"
    last = "end" if due_of(state) is not None else "newest event, and it gives no end"
    texts = {
        "covered": "past its deadline, but another open grant covers the same access",
        "no deadline": "open, without a deadline",
        ENDED: "ended under the policy, without a confirmed removal",
        UNRESOLVED: f"unresolved: nothing of it was received until long after its {last}, so it is not judged",
    }
    return f"{texts.get(name, name)}; {known}"


def _past_end_text(output: Output, state: Row, ended: PastEnd) -> str:
    if ended.kind == "inside_grace":
        return f"inside the grace: overdue after {output.moment(ended.since)}"
    if ended.kind == "closed":
        return "and a person closed its finding"
    if ended.kind == "watch_down":
        since = f"since {output.moment(ended.since)} or later" if ended.since else "and has written no state"
        return f"not judged: the watch is down {since}"
    if ended.kind == "watch_hangs":
        since = f"since {output.moment(ended.since)}" if ended.since else "yet"
        return f"not judged: the watch runs, and has judged nothing {since}; `grantledger status` has more"
    if ended.kind == "no_policy":
        return "not judged: no watch policy is on record, so no watch has run"
    if ended.kind == "watch_unknown":
        since = f"; as far as known here, it has judged nothing since {output.moment(ended.since)}"
        return f"not judged, and Kafka does not answer: the watch may be down{since if ended.since else ''}"
    return "not judged yet: the watch runs; it reports within seconds, or `grantledger status` shows why not"


def _removed(output: Output, state: Row) -> str:
    return f"removed {output.moment(state['removed_at'])}, confirmed"


def next_step(output: Output, state: Row, ended: PastEnd | None, requests: Sequence[Revocation], now: datetime) -> str:
    """Return what to do about a grant; empty if its access may run, or has ended.

    Args:
        requests: the requested revocations, the newest first.
    """
    name = state["state"]
    if name == "removed":
        return ""
    if pending := [one for one in requests if one.is_pending(now)]:
        return _about_request(output, pending[0], now)
    if name == UNRESOLVED:
        return "check in the tool whether the access exists, and end it there: no enforcer revokes historical access"
    if name not in ("overdue", PAST_END):
        return ""
    if name == "overdue" and state["removed_at"] is not None:
        return "wait some seconds: the watch resolves the finding; if not, `grantledger status` shows whether it judges"
    if ended is not None and ended.kind == "inside_grace":
        return f"wait until {output.moment(ended.since)}: the access may still end on time"
    if ended is not None and ended.kind == "judged_soon":
        return "wait some seconds, then run this command again"
    command = f"{grant_command('revoke', state)} --reason '…'"
    watch = {"watch_down": "start the watch; ", "watch_hangs": "end the watch and start it again; "}
    first = watch.get(ended.kind, "") if ended is not None else ""
    return f"{first}check in the tool whether the access exists. To have it revoked: {command}"


def _about_request(output: Output, request: Revocation, now: datetime) -> str:
    """Return what to do while a revocation is requested: it never contradicts the text of the request."""
    by_hand = "check in the tool whether the access exists, and end it there"
    if request.is_late(now):
        return f"no enforcer acts: {by_hand}"
    if request.answer is None:
        return f"wait for an enforcer until {output.moment(request.requested_at + PATIENCE)}; after that, {by_hand}"
    if request.answer["outcome"] == "failure":
        return f"wait for the next attempt, or {by_hand}"
    until = request.answer["append_time"] + PATIENCE
    return f"wait for its result until {output.moment(until)}; after that, {by_hand}" if now <= until else by_hand
