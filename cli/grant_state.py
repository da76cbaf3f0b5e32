"""The one state of a grant, as a sentence. Of a grant past its end, the policy on record and the watch decide which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ..base.times import micros_of
from ..processors.access import Access, Source, to_datetime
from ..runtime.watch_liveness import WatchLiveness
from .grant_command import grant_command
from .grant_revocations import Revocation
from .grants import ENDED, PAST_END, UNRESOLVED, due_of
from .output import Output, Row, span

if TYPE_CHECKING:
    from ..processors.watch_policy import GrantLimits


@dataclass(frozen=True, slots=True)
class PastEnd:
    """Why a grant that is past its end, and has not ended under the policy, is not overdue.

    Attributes:
        since: the end of the grace; when the finding resolved; when a watch that is down last wrote its state.
    """

    kind: Literal["inside_grace", "closed", "watch_down", "no_policy", "watch_unknown", "judged_soon"]
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
    if watch is None:
        return PastEnd("watch_unknown")
    return PastEnd("judged_soon") if watch.running else PastEnd("watch_down", watch.last_written)


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
    texts = {
        "covered": "past its deadline, but another open grant covers the same access",
        "no deadline": "open, without a deadline",
        ENDED: "ended under the policy, without a confirmed removal",
        UNRESOLVED: "unresolved: its records arrived long after its end, so it is not judged",
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
    if ended.kind == "no_policy":
        return "not judged: no watch policy is on record, so no watch has run"
    if ended.kind == "watch_unknown":
        return "not judged, and Kafka does not answer: the watch may be down"
    return "not judged yet: the watch runs; it reports within seconds, or `grantledger status` shows why not"


def _removed(output: Output, state: Row) -> str:
    return f"removed {output.moment(state['removed_at'])}, confirmed"


def next_step(state: Row, ended: PastEnd | None, requests: Sequence[Revocation], now: datetime) -> str:
    """Return the advice for a grant that is overdue or past its end; empty if it is best to wait."""
    if ended is not None and ended.kind in ("inside_grace", "judged_soon"):
        return ""
    if pending := [one for one in requests if one.is_pending(now)]:
        late = any(one.is_late(now) for one in pending)
        return "no enforcer acts: check in the tool whether the access exists, and end it there" if late else ""
    command = f"{grant_command('revoke', state)} --reason '…'"
    return f"check in the tool whether the access exists. To have it revoked: {command}"
