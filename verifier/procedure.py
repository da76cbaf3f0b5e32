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
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from itertools import chain
from typing import ClassVar, Protocol

from ..ledger.anchor import Anchor
from ..ledger.keys import LogKeys
from ..ledger.note import NoteError
from .anchors import OutsideAnchors, gap_outside, lost_heads, verify_anchors, verify_outside
from .logs import VerifiedLog, check_epochs
from .report import Report
from .state import State, check_remembered

Progress = Callable[[int, int], None]
"""Called with the number of entries checked, and of all entries or 0 if it is not known."""
Wanted = Mapping[str, Set[int]]
"""Sizes by origin."""


class Evidence(Protocol):
    """A copy of a ledger: the tables in ClickHouse, or the topics in Kafka."""

    name: ClassVar[str]
    complete_epochs: ClassVar[bool]  # every epoch must be here
    complete_anchors: ClassVar[bool]  # every anchor from outside must be here

    @property
    def deployment(self) -> str:
        """The deployment's name, as given by the caller."""
        ...

    def read_anchors(self, report: Report) -> Sequence[Anchor]:
        """Return all anchors; record those that cannot be read as problems."""
        ...

    def verify_logs(
        self, keys: LogKeys, covered: Mapping[str, int], wanted: Wanted, report: Report, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        """Perform those of steps 1 to 10 that this copy allows, and return the logs by origin.

        ``covered``: the sizes that they must reach. ``wanted``: the sizes whose roots are compared later.
        """
        ...


def verify(
    evidence: Evidence,
    keys: LogKeys,
    *,
    outside: OutsideAnchors = OutsideAnchors(),  # noqa: B008 - frozen
    remembered: State | None = None,
    stored_by: int = 0,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Verify all evidence of a deployment. An exception means that the evidence could not be read.

    Args:
        remembered: heads of earlier verifications, which the logs must still contain.
        stored_by: a time in milliseconds since 1970. Entries that an older anchor from outside covers and the store
            lacks were removed; younger ones may not be stored yet.
    """
    started = time.monotonic()
    report = Report(evidence.name, evidence.deployment, unknown_lines=outside.unknown_lines)
    # Anchors are written after the entries that they cover. So anchors are read first: the entries read next must
    # reach them, also while the pipeline runs.
    anchors = evidence.read_anchors(report)
    # Steps 1 to 10: each log on its own, from the genesis to the last checkpoint.
    wanted = wanted_sizes(anchors, outside.anchors, remembered)
    logs = evidence.verify_logs(keys, covered_sizes(outside.anchors), wanted, report, progress)
    # Step 2, Genesis: each epoch binds the one before.
    check_epochs(logs, complete=evidence.complete_epochs)
    for origin, log in logs.items():
        report.logs += 1
        report.checkpoints += log.checkpoints
        report.add(log.problem)
        if log.problem is None:
            size, root = log.head
            report.heads[origin] = (size, root.hex())
    # Steps 11 and 12: the anchor log, and the heads that it covers.
    lost = None if evidence.complete_epochs else lost_heads(logs)
    report.lost = {
        origin: head.size - (logs[origin].head[0] if origin in logs else 0)
        for origin, head in (lost or {}).items()
        if head is not None
    }
    verified = verify_anchors(anchors, keys, logs, evidence.deployment, lost)
    report.anchors = verified.count
    report.anchor_heads = {
        origin: (size, root.hex())
        for origin, roots in verified.roots.items()
        for size, root in list(roots.items())[-1:]
    }
    report.add(verified.problem)
    if remembered is not None and verified.problem is None:
        missing = list(
            check_remembered(remembered, evidence.name, logs, verified.roots, complete=evidence.complete_epochs)
        )
        for problem in missing:
            report.add(problem)
        report.remembered = sum(map(len, remembered.heads.values())) - len(missing)
    # Step 13: the same against anchors that no one with access to the ledger can change.
    stored = {(anchor.origin, anchor.index): anchor for anchor in anchors}
    report.outside_anchors, problems = verify_outside(
        outside.anchors,
        stored,
        keys,
        logs,
        evidence.deployment,
        lost=lost,
        complete=evidence.complete_anchors,
        stored_by=stored_by,
    )
    sound = outside.anchors[: report.outside_anchors]
    report.outside_only = sum((anchor.origin, anchor.index) not in stored for anchor in sound)
    report.nothing_outside = gap_outside(outside, anchors)
    for problem in problems:
        report.add(problem)
    covered = {head.origin for anchor in (*anchors[: report.anchors], *sound) for head in anchor.checkpoints()}
    report.unanchored = sorted(origin for origin, log in logs.items() if log.head[0] and origin not in covered)
    report.seconds = time.monotonic() - started
    return report


def wanted_sizes(inside: Sequence[Anchor], outside: Sequence[Anchor], remembered: State | None) -> Wanted:
    """Return the sizes of the logs that anchors cover, or that an earlier verification found."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for anchor in chain(inside, outside):
        with suppress(NoteError):  # steps 11 and 13 report it
            for head in anchor.checkpoints():
                wanted[head.origin].add(head.size)
    for heads in remembered.heads.values() if remembered is not None else ():
        for origin, (size, _root) in heads.items():
            wanted[origin].add(size)
    return wanted


def covered_sizes(outside: Sequence[Anchor]) -> dict[str, int]:
    """Return the sizes of the logs that the last anchor from outside covers; none if it is malformed."""
    try:
        return {head.origin: head.size for anchor in outside[-1:] for head in anchor.checkpoints()}
    except NoteError:  # step 13 reports it
        return {}
