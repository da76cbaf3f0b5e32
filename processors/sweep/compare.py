"""Compares overdue access, computed in SQL over ClickHouse, with the open findings of the watch.

The sweep shares only the policy with the watch: no rules, no state, no decoding. A difference in two sweeps in a row is
a finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...schemas.access_key import access_key
from ...schemas.event import Event, EventSource, IssuingSource, Resource, Subject
from ...schemas.finding_event import finding_event
from ...schemas.own_sources import SWEEP
from ..access import SECOND, Access, Source, shorten, to_datetime
from ..watch_policy import EffectivePolicy, WatchPolicy

SYSTEM = SWEEP
RULE = "sweep_difference"
SUBJECT = Subject(SYSTEM, "system")
"""Of a finding about a grant whose holder is not known."""
Deadlines = dict[str, int]
"""Grants by shortened access key, and the deadline that each has outlived, in microseconds since 1970."""

NAMES = (
    "grant_id", "tenant", "subject_id", "resource_kind", "resource_id", "entitlement", "resource_environment",
    "source_system", "source_instance",
)  # fmt: skip
OPEN_GRANTS = """
WITH
    [
        toString(grant_id), toString(tenant), toString(subject_id), toString(resource_kind), toString(resource_id),
        toString(entitlement), toString(resource_environment), toString(source_system), toString(source_instance)
    ] AS names
SELECT
    grant_id, tenant, subject_id, resource_kind, resource_id, entitlement, resource_environment, source_system,
    source_instance,
    if(arrayAll(one -> isValidUTF8(one), names), '', arrayStringConcat(arrayMap(one -> hex(one), names), ','))
        AS hex_names,
    removal_evidence, sharing, toUnixTimestamp64Micro(deadline) AS deadline_us,
    toUnixTimestamp64Micro(deadline_recorded_at) AS given, toUnixTimestamp64Micro(stretch_recorded_at) AS stretch
FROM
(
    SELECT *, count() OVER (PARTITION BY tenant, subject_id, resource_kind, resource_id, entitlement) AS sharing
    FROM grant_states
    WHERE removed_at IS NULL AND NOT historical
)
WHERE source_system NOT IN {ending:Array(String)}
    AND (toUnixTimestamp64Micro(deadline) < {now:Int64} OR (deadline IS NULL AND {endless:UInt8}))
"""
"""Grants without a confirmed removal that may be overdue.

``hex_names``: the bytes of the names if any of them is not UTF-8; :func:`with_texts` decodes them like the watch does.
"""
OPEN_FINDINGS = """
SELECT
    open, rule, key, grant_id, tenant, subject_id, resource_kind, resource_id, entitlement, resource_environment,
    grant_source_system AS source_system, grant_source_instance AS source_instance,
    toUnixTimestamp64Micro(assumeNotNull(deadline)) AS deadline_us
FROM findings
WHERE deadline IS NOT NULL
    AND (open AND rule IN ('overdue', 'sweep_difference') OR rule = 'overdue' AND closed_at IS NOT NULL)
"""
"""The open findings of the watch and the sweep, and those of the watch that a person has closed."""
SHOWN = "SELECT argMax(sizes, (generation, version))[{origin:String}] AS size FROM state_refreshes WHERE complete"
"""Number of entries of a log that the states of grants and findings contain."""
STORED = "SELECT max(`index`) + 1 AS size FROM entries WHERE origin = {origin:String}"


class StoreView(NamedTuple):
    """Overdue grants by SQL, and grants that SQL cannot judge because several grants share one access."""

    overdue: Deadlines
    undecided: set[str]
    rows: Mapping[str, Mapping[str, Any]] = {}
    """The names of each overdue grant."""

    def leave_out(self, name: str, deadline: int) -> None:
        """Leave out a grant if it is overdue since a deadline about which a person has closed the finding."""
        if self.overdue.get(name) == deadline:
            del self.overdue[name]


def systems_that_expire(policy: WatchPolicy) -> list[str]:
    """Return the systems whose access always ends with its credential, so that it is never overdue."""
    everything = {"tenant", "instance", "resource_kind", "resource", "environment", "entitlement"}
    found: set[str] = set()
    for rule in policy.rule:
        if "removal" not in rule.model_fields_set:
            continue
        plain = all(getattr(rule, name) == "*" for name in everything) and not set("*?[") & set(rule.source)
        if plain and "deadline" in rule.removal:
            found.add(rule.source)
        else:  # may revert that for some of them
            found.clear()
    return sorted(found)


def view_of_store(rows: Iterable[Mapping[str, Any]], policy: WatchPolicy, now: int) -> StoreView:
    """Return which of the ``OPEN_GRANTS`` are overdue at a time, in microseconds since 1970."""
    limits_of = EffectivePolicy(policy).limits
    overdue: Deadlines = {}
    undecided: set[str] = set()
    known: dict[str, Mapping[str, Any]] = {}
    for row in map(with_texts, rows):
        access = Access(row["tenant"], row["subject_id"], row["resource_kind"], row["resource_id"], row["entitlement"])
        source = Source(row["source_system"], row["source_instance"])
        limits = limits_of(source, access, row["resource_environment"])
        deadline = row["deadline_us"] if row["deadline_us"] is not None else limits.longest_end(row["stretch"])
        ends_by_itself = "deadline" in limits.removal or row["removal_evidence"] in limits.removal
        if ends_by_itself or limits.overdue_after(deadline, row["given"]) >= now:
            continue
        name = grant_key_of(row, row["grant_id"])
        if row["sharing"] > 1:
            undecided.add(name)
        else:
            overdue[name], known[name] = deadline, row
    return StoreView(overdue, undecided, known)


def with_texts(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of ``OPEN_GRANTS`` with names that are valid text. ClickHouse would replace other bytes."""
    if not row.get("hex_names"):
        return row
    texts = (bytes.fromhex(one).decode("utf-8", "replace") for one in row["hex_names"].split(","))
    return {**row, **dict(zip(NAMES, texts, strict=True))}


def grant_key_of(row: Mapping[str, Any], grant_id: str) -> str:
    """Return the shortened access key of the grant in a row."""
    return shorten(access_key(row["tenant"], (row["source_system"], row["source_instance"]), grant_id))


class Differences:
    """Grants on which two sweeps in a row differed from the watch. ``known``: the open differences on record."""

    def __init__(self, known: Mapping[str, int] | None = None) -> None:
        self.open: Deadlines = dict(known or {})
        self._before: set[str] = set()

    def compare(self, view: StoreView, found: Deadlines) -> tuple[list[tuple[str, int, str]], list[tuple[str, int]]]:
        """Compare with the open overdue findings of the watch.

        Return the differences that open (grant, deadline, ``store`` or ``watch``) and those that are resolved.
        """
        missing = view.overdue.keys() - found.keys()
        extra = found.keys() - view.overdue.keys() - view.undecided
        now = missing | extra
        lasting = now & self._before
        self._before = now
        opened = [
            (one, view.overdue[one], "store") if one in missing else (one, found[one], "watch")
            for one in sorted(lasting - self.open.keys())
        ]
        resolved = [(one, self.open[one]) for one in sorted(self.open.keys() - now)]
        self.open |= {one: deadline for one, deadline, _ in opened}
        for one, _ in resolved:
            del self.open[one]
        return opened, resolved


def difference(
    deployment: str, grant: tuple[str, int], at: int, row: Mapping[str, Any], *, by: str = "", resolved: bool = False
) -> Event:
    """Return the finding about one difference.

    Args:
        grant: its shortened access key, and its deadline.
        row: the names of the grant and its access, as far as they are known. The same ones resolve the finding.
        by: who reports the grant as overdue, ``store`` or ``watch``.
    """
    grant_id, deadline = grant
    # Within an hour, the same difference is the same finding; one that returns later is a new finding.
    identity = json.dumps([grant_id, deadline, at // (3600 * SECOND)])
    return finding_event(
        "finding.resolved" if resolved else "finding.opened",
        EventSource(SYSTEM, deployment, identity, "finding"),
        (RULE, grant_id),
        to_datetime(at),
        deadline=to_datetime(deadline),
        evidence={} if resolved else {"overdue_by": by},
        **_fields_of(row),
    )


def _fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event fields that name a grant and its access."""
    names = {name: shorten(row.get(name) or "") for name in NAMES}
    fields: dict[str, Any] = {"subject": Subject(names["subject_id"]) if names["subject_id"] else SUBJECT}
    if names["tenant"]:
        fields["tenant"] = names["tenant"]
    if names["grant_id"]:
        fields |= {"grant_id": names["grant_id"], "grant_id_kind": "native"}
    if names["source_system"]:
        fields["grant_source"] = IssuingSource(names["source_system"], names["source_instance"])
    if names["resource_id"]:
        environment = names["resource_environment"] or None
        fields["resource"] = Resource(names["resource_kind"], names["resource_id"], environment)
    return fields | {"entitlement": names["entitlement"] or None}
