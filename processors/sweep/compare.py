"""The sweep: what is overdue by SQL over ClickHouse, held against what the watch has said.

It shares the policy with the watch and nothing else: not its rules, not its state, not its reading of the log. What the
two do not agree on at two sweeps in a row is itself a finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...schemas import event as events
from ...schemas.event import Actor, Event, Finding, Subject
from ..watch.facts import Access, Source
from ..watch.life import NEVER
from ..watch.policy import SECOND, Judge, Policy
from ..watch.reports import moment, short

SYSTEM = "grantledger-sweep"
RULE = "sweep_difference"
Cases = dict[str, int]
"""Grants by their short names, and the deadline that each has outlived, in microseconds since 1970.

A tool may make an id so long that a finding which repeats it would fit into no record.
"""

OPEN_GRANTS = """
SELECT
    grant_id, tenant, subject_id, resource_kind, resource_id, entitlement, resource_environment, source_system,
    source_instance, removal_evidence, sharing, toUnixTimestamp64Micro(deadline) AS due,
    toUnixTimestamp64Micro(given_recorded_at) AS given, toUnixTimestamp64Micro(stretch_recorded_at) AS stretch
FROM
(
    SELECT *, count() OVER (PARTITION BY tenant, subject_id, resource_kind, resource_id, entitlement) AS sharing
    FROM grant_states
    WHERE removed_at IS NULL
)
WHERE source_system NOT IN {ending:Array(String)}
    AND (toUnixTimestamp64Micro(deadline) < {now:Int64} OR (deadline IS NULL AND {endless:UInt8}))
"""
"""Grants without a confirmed removal that may be overdue."""
OPEN_FINDINGS = """
SELECT rule, key, toUnixTimestamp64Micro(assumeNotNull(deadline)) AS due
FROM findings
WHERE open AND deadline IS NOT NULL AND rule IN ('overdue', 'sweep_difference')
"""
STORED = "SELECT max(`index`) + 1 AS size FROM entries WHERE origin = {origin:String}"


class Verdict(NamedTuple):
    """What a sweep found: overdue by SQL, and where it cannot tell because several grants share one access."""

    overdue: Cases
    unsure: set[str]


def ending_by_themselves(policy: Policy) -> list[str]:
    """Return the tools all of whose access ends with its credential, so that nothing of theirs is ever overdue."""
    everything = {"tenant", "instance", "resource_kind", "resource", "environment", "entitlement"}
    found: set[str] = set()
    for rule in policy.rule:
        if rule.removal is None:
            continue
        plain = all(getattr(rule, name) == "*" for name in everything) and not set("*?[") & set(rule.source)
        if plain and "deadline" in rule.removal:
            found.add(rule.source)
        else:  # may take it back for some of them
            found.clear()
    return sorted(found)


def judged(rows: Iterable[Mapping[str, Any]], policy: Policy, now: int) -> Verdict:
    """Return what is overdue at a time.

    Args:
        rows: of ``OPEN_GRANTS``.
        now: microseconds since 1970.
    """
    judge = Judge(policy)
    overdue: Cases = {}
    unsure: set[str] = set()
    for row in rows:
        access = Access(row["tenant"], row["subject_id"], row["resource_kind"], row["resource_id"], row["entitlement"])
        source = Source(row["source_system"], row["source_instance"])
        limits = judge.limits(source, access, row["resource_environment"])
        deadline = row["due"]
        if deadline is None:
            deadline = row["stretch"] + int(limits.max_seconds * SECOND) if limits.max_seconds is not None else NEVER
        ends_by_itself = "deadline" in limits.removal or row["removal_evidence"] in limits.removal
        if ends_by_itself or max(deadline, row["given"]) + int(limits.grace_seconds * SECOND) >= now:
            continue
        name = short(row["grant_id"])
        if row["sharing"] > 1:
            unsure.add(name)
        else:
            overdue[name] = deadline
    return Verdict(overdue, unsure)


class Differences:
    """Grants on which two sweeps in a row did not agree with the watch.

    Args:
        known: differences on record that are open.
    """

    def __init__(self, known: Mapping[str, int] | None = None) -> None:
        self.open: Cases = dict(known or {})
        self._before: set[str] = set()

    def compare(self, verdict: Verdict, found: Cases) -> tuple[list[tuple[str, int, str]], list[tuple[str, int]]]:
        """Return what opens, as grant, deadline and who says so, and what is resolved, as grant and deadline.

        Args:
            found: the overdue findings of the watch that are open.
        """
        missing = verdict.overdue.keys() - found.keys()
        more = found.keys() - verdict.overdue.keys() - verdict.unsure
        now = missing | more
        lasting = now & self._before
        self._before = now
        opened = [
            (one, verdict.overdue[one], "store") if one in missing else (one, found[one], "watch")
            for one in sorted(lasting - self.open.keys())
        ]
        resolved = [(one, self.open[one]) for one in sorted(self.open.keys() - now)]
        self.open |= {one: deadline for one, deadline, _ in opened}
        for one, _ in resolved:
            del self.open[one]
        return opened, resolved


def difference(deployment: str, case: tuple[str, int], at: int, *, by: str = "", resolved: bool = False) -> Event:
    """Return the finding about one difference.

    Args:
        at: microseconds since 1970.
        by: who says that the grant is overdue: ``store`` or ``watch``; the other one does not.
    """
    grant_id, deadline = case
    evidence = {} if resolved else {"overdue_by": by}
    return Event(
        event_type="finding.resolved" if resolved else "finding.opened",
        occurred_at=moment(at),
        # An hour's sweeps that meet the same difference again say the same; one that comes back later is news.
        source=events.Source(SYSTEM, deployment, json.dumps([grant_id, deadline, at // (3600 * SECOND)]), "finding"),
        subject=Subject(SYSTEM, "system"),
        actor=Actor(SYSTEM, "system"),
        outcome="success" if resolved else "failure",
        finding=Finding(RULE, grant_id, "critical", moment(deadline), json.dumps(evidence)),
    )
