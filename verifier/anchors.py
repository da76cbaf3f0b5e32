"""Steps 11 to 13: the anchor log, and the logs compared with the checkpoints that anchors cover. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ..ledger.anchor import Anchor, AnchorError, anchor_log, check_anchor, check_extends
from ..ledger.entry import epoch_of, split_origin
from ..ledger.keys import LogKeys
from ..ledger.note import Checkpoint
from ..sinks.file_target import scan_anchor_file
from .logs import VerifiedLog, kind_of
from .steps import Problem

Logs = Mapping[str, VerifiedLog]
Lost = Mapping[str, Checkpoint | None]
RECENT = 2
"""Stored anchors that a file from outside may lack: targets receive an anchor after the ledger."""


@dataclass(frozen=True, slots=True)
class OutsideAnchors:
    """The anchors from outside.

    Attributes:
        unknown_lines: lines of the file that are not anchors.
        missing: why there are none.
        read_at_ms: when they were read, in milliseconds since 1970. The ledger may have later ones.
    """

    anchors: Sequence[Anchor] = ()
    unknown_lines: int = 0
    missing: str = "no anchors from outside were given (--anchors)"
    read_at_ms: int = 1 << 63


def read_outside(path: Path) -> OutsideAnchors:
    """Read the file of the anchor target ``file``; without a readable one, there are no anchors from outside."""
    read_at_ms = time.time_ns() // 1_000_000
    try:
        lines = list(scan_anchor_file(path))
    except OSError as error:
        return OutsideAnchors(missing=f"the file of anchors {path} cannot be read: {error.strerror}")
    anchors = [anchor for anchor in lines if anchor is not None]
    return OutsideAnchors(anchors, len(lines) - len(anchors), f"the file {path} contains no anchor", read_at_ms)


@dataclass(slots=True)
class VerifiedAnchors:
    """The anchors stored in the ledger, up to the first problem: how many, and the heads of the anchor log."""

    count: int = 0
    problem: Problem | None = None
    roots: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """By origin and size."""

    def add(self, anchor: Anchor) -> None:
        """Count a sound anchor."""
        head = anchor.head()
        self.roots.setdefault(head.origin, {})[head.size] = head.root
        self.count += 1


def lost_heads(logs: Logs) -> dict[str, Checkpoint | None]:
    """Return the epochs of which Kafka lost the end or everything, with the heads that the next epochs bind if known.

    A person opened the next epoch for that reason. In ClickHouse, nothing may be missing.
    """
    lost: dict[str, Checkpoint | None] = {}
    for origin, log in logs.items():
        name, epoch = split_origin(origin)
        for earlier in range(epoch):
            lost.setdefault(f"{name}/{earlier}", None)
        if epoch:
            bound = Checkpoint(f"{name}/{epoch - 1}", log.genesis.previous_size, log.genesis.previous_root)
            lost[bound.origin] = bound
    for origin, head in list(lost.items()):
        here = logs.get(origin)
        if here is not None and (here.problem is not None or head is None or here.head[0] >= head.size):
            del lost[origin]
    return lost


def verify_anchors(
    anchors: Sequence[Anchor], keys: LogKeys, logs: Logs, deployment: str, lost: Lost | None = None
) -> VerifiedAnchors:
    """Verify the anchor log of a deployment from its beginning, and the logs against it.

    Args:
        lost: see :func:`lost_heads`; None if nothing may be missing, the beginning of the anchor log included.
    """
    log = anchor_log(deployment)
    reopened = lost is not None and any(_epoch(anchor, log) > 0 for anchor in anchors)
    last: Anchor | None = None
    verified = VerifiedAnchors()
    for anchor in anchors:
        verified.problem = _anchor_problem(last, anchor, keys, log, reopened=reopened) or next(
            check_covered(anchor, logs, lost), None
        )
        if verified.problem is not None:
            break
        verified.add(anchor)
        last = anchor
    return verified


def _anchor_problem(last: Anchor | None, anchor: Anchor, keys: LogKeys, log: str, *, reopened: bool) -> Problem | None:
    """Step 11, Anchors: dense indices, and every anchor is signed and continues the ones before."""
    if _epoch(anchor, log) < 0:
        message = f"an anchor of {anchor.origin} is among them"
        return Problem(f"{log}/0", last.index + 1 if last else 0, "anchor", message, "deployment")
    if (problem := _index_problem(last, anchor, log, reopened=reopened)) is not None:
        return problem
    try:
        check_anchor(anchor, keys.at(anchor.origin, anchor.index + 1))
        if last is not None or not reopened:
            check_extends(last, anchor)
    except AnchorError as error:
        return Problem(anchor.origin, anchor.index, "anchor", str(error), kind_of(error))
    return None


def _epoch(anchor: Anchor, log: str) -> int:
    """Return the epoch of an anchor; -1 if it belongs to another log."""
    try:
        name, epoch = split_origin(anchor.origin)
    except ValueError:
        return -1
    return epoch if name == log else -1


def _index_problem(last: Anchor | None, anchor: Anchor, log: str, *, reopened: bool) -> Problem | None:
    if last is None:
        origin, wanted = f"{log}/0", 0
        if reopened:
            return None
    elif anchor.origin == last.origin:
        origin, wanted = last.origin, last.index + 1
    elif anchor.index > 0:
        return Problem(anchor.origin, anchor.index, "anchor_index", f"anchor 0 of {anchor.origin} is missing")
    else:
        return None
    if anchor.origin != origin:
        return Problem(origin, wanted, "anchor_index", f"anchor {wanted} is missing")
    if anchor.index == wanted:
        return None
    double = anchor.index < wanted
    message = f"anchor {anchor.index} is stored more than once" if double else f"anchor {wanted} is missing"
    return Problem(origin, min(anchor.index, wanted), "anchor_index", message)


def check_covered(anchor: Anchor, logs: Logs, lost: Lost | None = None) -> Iterator[Problem]:
    """Step 12, Anchored heads: every log contains the checkpoint that the anchor covers. Yield one problem per log.

    Logs with a problem are left out: the anchor shows nothing new about them. The head of the anchor log's own previous
    epoch is part of step 11.
    """
    for checkpoint in anchor.checkpoints():
        origin, size = checkpoint.origin, checkpoint.size
        log = logs.get(origin)
        if split_origin(origin)[0] == split_origin(anchor.origin)[0]:
            continue
        if lost is not None and origin in lost and (log is None or size > log.head[0]):
            bound = lost[origin]
            if bound is None or size < bound.size or checkpoint == bound:
                continue
            message = f"anchor {anchor.index} covers {size} entries; the next epoch binds {bound.size}, or another root"
            yield Problem(origin, min(size, bound.size), "anchored_head", message)
        elif log is None:
            if size:
                message = f"anchor {anchor.index} covers this log, and none of it is here"
                yield Problem(origin, 0, "truncated", message)
        elif log.problem is None and log.roots.get(size) != checkpoint.root:
            yield differing(log.roots, log.head[0], checkpoint, f"anchor {anchor.index} covers", "anchored_head")


def differing(roots: Mapping[int, bytes], here: int, head: Checkpoint, covers: str, check: str) -> Problem:
    """Return the problem that a log does not contain a head: it is shorter, or another one."""
    if head.size > here:
        return Problem(head.origin, here, "truncated", f"{covers} {head.size} entries, only {here} are here")
    if head.size not in roots:
        message = f"{covers} a checkpoint of {head.size} entries that is not here"
    else:
        message = f"{covers} {head.size} entries with another root: history was rewritten"
    return Problem(head.origin, head.size - 1, check, message)


def verify_outside(
    outside: Sequence[Anchor],
    inside: Mapping[tuple[str, int], Anchor],
    keys: LogKeys,
    logs: Logs,
    deployment: str,
    *,
    lost: Lost | None,
    complete: bool,
    stored_by: int = 0,
) -> tuple[int, list[Problem]]:
    """Step 13, Outside anchors: each one is signed, is the one stored here, and is covered by the logs.

    Args:
        inside: the anchors stored here, by origin and index.
        lost: see :func:`lost_heads`; None if nothing may be missing.
        complete: every anchor outside must be stored here as well, from the first one stored here on.
        stored_by: whatever anchors before this time cover must be stored, in milliseconds since 1970.

    Returns:
        The number of sound anchors, and the problems: the first one, and before it, the last one of each log of which
        a store has not stored everything that the anchors cover.
    """
    log = anchor_log(deployment)
    behind: dict[str, Problem] = {}
    first = min(((epoch_of(origin), index) for origin, index in inside), default=(0, 0))
    if first[0] == 0 and not any(epoch_of(origin) for origin, _ in inside):
        first = (0, 0)  # only an opened epoch explains a missing beginning
    for count, anchor in enumerate(outside):
        stored = inside.get((anchor.origin, anchor.index))
        problem = _outside_problem(anchor, stored, keys, log)
        for missing in check_covered(anchor, logs, lost) if problem is None else ():
            if missing.check == "truncated" and stored is None and not complete:
                if anchor.time_ms < stored_by:
                    behind[missing.origin] = _removed(missing, anchor)
                elif missing.origin not in behind or behind[missing.origin].kind == "behind":
                    behind[missing.origin] = replace(missing, kind="behind")
            else:
                problem = problem or missing
        if problem is None and stored is None and complete and (_epoch(anchor, log), anchor.index) >= first:
            message = f"anchor {anchor.index} is outside and is missing here"
            problem = Problem(anchor.origin, anchor.index, "anchor_index", message)
        if problem is not None:
            return count, [*behind.values(), problem]
    return len(outside), list(behind.values())


def _removed(missing: Problem, anchor: Anchor) -> Problem:
    """Return the problem that a running store still lacks entries although their anchor is old."""
    since = datetime.fromtimestamp(anchor.time_ms / 1000, UTC)
    message = f"{missing.message}, although this anchor is from {since:%Y-%m-%d %H:%M} UTC and the store is running"
    return replace(missing, message=message)


def _outside_problem(anchor: Anchor, stored: Anchor | None, keys: LogKeys, log: str) -> Problem | None:
    index, epoch = anchor.index, _epoch(anchor, log)
    origin = f"{log}/{max(0, epoch)}"
    try:
        check_anchor(anchor, keys.at(anchor.origin, index + 1))
    except AnchorError as error:
        return Problem(origin, index, "outside_anchor", f"in the copy from outside, {error}", kind_of(error))
    if epoch < 0:
        message = f"the anchor from outside belongs to {anchor.origin}"
        return Problem(origin, index, "outside_anchor", message, "deployment")
    if stored is not None and stored != anchor:
        message = f"anchor {index} from outside is not the one stored here: two histories"
        return Problem(origin, index, "outside_anchor", message)
    return None


def gap_outside(outside: OutsideAnchors, stored: Sequence[Anchor]) -> str:
    """Return why the anchors from outside do not cover what those stored here cover; empty if they do."""
    if not outside.anchors:
        return outside.missing
    last = outside.anchors[-1]
    order = (len(last.origin), last.origin, last.index)
    stored = [anchor for anchor in stored if anchor.time_ms <= outside.read_at_ms]
    after = sum((len(anchor.origin), anchor.origin, anchor.index) > order for anchor in stored[-RECENT - 1 :])
    if after <= RECENT:
        return ""
    return f"the anchors from outside end at anchor {last.index} of {last.origin}: the ledger has {stored[-1].index}"
