"""Verify a ledger. Start reading here.

A sound report proves: every entry of every log is as it was sealed, in its place, none missing between the genesis and
the last checkpoint; the key that you brought signed all checkpoints; every anchor covers these logs and no others; and,
for ClickHouse, the decoded columns are those of the sealed payloads.

The caller must still:

- **Bring the public key** from a source other than the ledger. Who can replace the key can replace the ledger.
- **Check the deployment's name**: a sound ledger may be the wrong one.
- **Bring anchors from outside**, from storage that the ledger's operators cannot change. Without them, a log that was
  cut off at its end is sound.
- **Compare heads** with a witness or with the last report: the key's holder can sign a second history.
- **Judge the events**: the ledger proves which events were sent, not that they are true.

The steps are numbered as in docs/ledger.md, "How to verify". :mod:`.steps` lists them; comments mark each in the code.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import ClassVar, Protocol

from ..ledger.anchor import Anchor
from ..ledger.keys import LogKeys
from .anchors import StoredAnchors, lost_heads, survey, verify_anchors
from .log_keys import check_log_keys, newer_key
from .logs import VerifiedLog, check_epochs
from .outside import OutsideAnchors, gap_outside, verify_outside
from .remembered_heads import RememberedHeads, check_remembered
from .report import VerifyReport
from .scratch import Scratch
from .since import Later, Since
from .steps import Problem

Progress = Callable[[int, int], None]
"""Called with the number of entries checked, and of all entries or 0 if it is not known."""


class Evidence(Protocol):
    """A copy of a ledger: the tables in ClickHouse, or the topics in Kafka."""

    name: ClassVar[str]
    complete_epochs: ClassVar[bool]  # every epoch must be here
    complete_anchors: ClassVar[bool]  # every anchor from outside must be here

    @property
    def since(self) -> Since | None:
        """Where an earlier verification ended; its anchors and logs begin there."""
        ...

    @property
    def deployment(self) -> str:
        """The deployment's name, as given by the caller."""
        ...

    def read_anchors(self, report: VerifyReport) -> Iterable[Anchor]:
        """Return all anchors that there are now, to be read twice; record those that cannot be read as problems."""
        ...

    def verify_logs(
        self, keys: LogKeys, covered: Mapping[str, int], scratch: Scratch, report: VerifyReport, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        """Perform those of steps 1 to 10 that this copy allows, and return the logs by origin.

        ``covered``: the sizes that they must reach. ``scratch``: where the roots are kept that are compared later.
        """
        ...


def verify(
    evidence: Evidence,
    keys: LogKeys,
    *,
    outside: OutsideAnchors = OutsideAnchors(),  # noqa: B008 - frozen
    remembered: RememberedHeads | None = None,
    stored_by: int = 0,
    progress: Progress = lambda done, total: None,
) -> VerifyReport:
    """Verify all evidence of a deployment. An exception means that the evidence could not be read.

    Args:
        remembered: heads of earlier verifications, which the logs must still contain.
        stored_by: a time in milliseconds since 1970. Entries that an older anchor from outside covers and the store
            lacks were removed; younger ones may not be stored yet.
    """
    started = time.monotonic()
    with closing(Scratch()) as scratch:
        report = _verify(
            evidence, keys, scratch, outside=outside, remembered=remembered, stored_by=stored_by, progress=progress
        )
    report.seconds = time.monotonic() - started
    return report


def _verify(
    evidence: Evidence,
    keys: LogKeys,
    scratch: Scratch,
    *,
    outside: OutsideAnchors,
    remembered: RememberedHeads | None,
    stored_by: int,
    progress: Progress,
) -> VerifyReport:
    report, deployment = VerifyReport(evidence.name, evidence.deployment), evidence.deployment
    if (since := evidence.since) is not None:
        outside = replace(outside, anchors=Later(outside.anchors, since))
        remembered = remembered and remembered.since(since)
    # Anchors are written after the entries that they cover. So anchors are read first: the entries read next must
    # reach them, also while the pipeline runs.
    anchors = evidence.read_anchors(report)
    of_inside = survey(anchors, deployment, scratch)
    of_outside = survey(outside.anchors, deployment, scratch)
    report.unknown_lines = of_outside.unreadable
    scratch.last_covered = of_inside.covered_sizes()
    for heads in remembered.heads.values() if remembered is not None else ():
        for origin, (size, _root) in heads.items():
            scratch.want(origin, size)
    # Steps 1 to 10: each log on its own, from the genesis to the last checkpoint.
    logs = evidence.verify_logs(keys, of_outside.covered_sizes(), scratch, report, progress)
    # Step 2, Genesis: each epoch binds the one before.
    check_epochs(logs, complete=evidence.complete_epochs)
    for origin, log in logs.items():
        report.logs += 1
        report.checkpoints += log.roots.count
        report.add(log.problem)
        if log.problem is None:
            size, root = log.head
            report.heads[origin] = (size, root.hex())
    lost = None if evidence.complete_epochs else lost_heads(logs)
    # Step 7, Checkpoint: entries of the ledger name the later keys of the list.
    for found in check_log_keys(keys, logs, deployment, lost):
        if isinstance(found, Problem):
            report.add(found)
        else:
            report.unchecked.append(found)
    report.newer_key = newer_key(keys, logs)
    # Steps 11 and 12: the anchor log, and the heads that it covers.
    report.lost = {
        origin: head.size - (logs[origin].head[0] if origin in logs else 0)
        for origin, head in (lost or {}).items()
        if head is not None
    }
    stored = StoredAnchors(scratch, outside.read_at_ms)
    recorded = stored.recorded(anchors)
    inside = verify_anchors(
        recorded,
        keys,
        logs,
        deployment,
        scratch,
        lost=lost,
        reopened=of_inside.reopened,
        since=since.anchors if since is not None else None,
    )
    deque(recorded, maxlen=0)  # anchors after the first problem are compared with those from outside as well
    report.anchors = inside.count
    report.anchor_heads = {origin: (roots.head[0], roots.head[1].hex()) for origin, roots in inside.roots.items()}
    report.add(inside.problem)
    if of_inside.last is not None and inside.problem is None:
        anchored = {origin: log.anchored for origin, log in logs.items() if log.anchored is not None}
        report.since = Since(of_inside.last.head(), anchored)
    if remembered is not None and inside.problem is None:
        complete = evidence.complete_epochs
        missing = list(check_remembered(remembered, evidence.name, logs, inside.roots, complete=complete))
        for problem in missing:
            report.add(problem)
        report.remembered = sum(map(len, remembered.heads.values())) - len(missing)
    # Step 13: the same against anchors that no one with access to the ledger can change.
    compared = verify_outside(
        outside.anchors,
        stored,
        keys,
        logs,
        deployment,
        lost=lost,
        complete=evidence.complete_anchors,
        first=of_inside.first,
        stored_by=stored_by,
    )
    report.outside_anchors, report.outside_only = compared.count, compared.only
    report.outside_until_ms = compared.until_ms
    report.nothing_outside = gap_outside(outside, of_outside, stored)
    for problem in compared.problems:
        report.add(problem)
    covered = inside.covered | compared.covered
    report.unanchored = sorted(origin for origin, log in logs.items() if log.head[0] and origin not in covered)
    return report
