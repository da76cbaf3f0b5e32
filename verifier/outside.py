"""Step 13: the anchors from outside, which no one with access to the ledger can change."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ..ledger.anchor import Anchor, AnchorError, anchor_log, check_anchor
from ..ledger.keys import LogKeys
from ..sinks.file_target import scan_anchor_file
from .anchors import RECENT, Logs, Lost, StoredAnchors, Survey, check_covered, epoch_in, origins_in
from .logs import kind_of
from .steps import Problem


@dataclass(frozen=True, slots=True)
class OutsideAnchors:
    """The anchors from outside. They are read twice.

    Attributes:
        anchors: None stands for a line that is not an anchor.
        missing: why there are none.
        read_at_ms: when they were read, in milliseconds since 1970. The ledger may have later ones.
    """

    anchors: Iterable[Anchor | None] = ()
    missing: str = "no anchors from outside were given (--anchors)"
    read_at_ms: int = 1 << 63


@dataclass(frozen=True, slots=True)
class AnchorFile:
    """The first ``size`` bytes of a file of the anchor target ``file``, which may grow while it is read."""

    path: Path
    size: int

    def __iter__(self) -> Iterator[Anchor | None]:
        return scan_anchor_file(self.path, self.size)


def read_outside(path: Path) -> OutsideAnchors:
    """Return the anchors that the file of the anchor target ``file`` has now; none if it cannot be read."""
    read_at_ms = time.time_ns() // 1_000_000
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        return OutsideAnchors(missing=f"the file of anchors {path} cannot be read: {error.strerror}")
    return OutsideAnchors(AnchorFile(path, size), f"the file {path} contains no anchor", read_at_ms)


@dataclass(slots=True)
class VerifiedOutside:
    """The anchors from outside, up to the first problem.

    Attributes:
        only: those that are not stored in the ledger.
        problems: the first one, and before it, the last one of each log of which a store has not stored everything
            that the anchors cover.
        covered: the logs that the anchors cover.
        until_ms: the time of the latest one, in milliseconds since 1970; None without one.
    """

    count: int = 0
    only: int = 0
    problems: list[Problem] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    until_ms: int | None = None


def verify_outside(
    outside: Iterable[Anchor | None],
    stored: StoredAnchors,
    keys: LogKeys,
    logs: Logs,
    deployment: str,
    *,
    lost: Lost | None,
    complete: bool,
    first: tuple[int, int] = (0, 0),
    stored_by: int = 0,
) -> VerifiedOutside:
    """Step 13, Outside anchors: each one is signed, is the one stored here, and is covered by the logs.

    Args:
        lost: see :func:`.anchors.lost_heads`; None if nothing may be missing.
        complete: every anchor outside must be stored here as well, from the ``first`` one stored here on.
        stored_by: whatever anchors before this time cover must be stored, in milliseconds since 1970.
    """
    log, verified = anchor_log(deployment), VerifiedOutside()
    behind: dict[str, Problem] = {}
    for anchor in outside:
        if anchor is None:
            continue
        same = stored.scratch.compare(anchor)
        problem = _outside_problem(anchor, keys, log, same=same)
        for missing in check_covered(anchor, logs, lost) if problem is None else ():
            if missing.check == "truncated" and same is None and not complete:
                if anchor.time_ms < stored_by:
                    behind[missing.origin] = _removed(missing, anchor)
                elif missing.origin not in behind or behind[missing.origin].kind == "behind":
                    behind[missing.origin] = replace(missing, kind="behind")
            else:
                problem = problem or missing
        if problem is None and same is None and complete and (epoch_in(log, anchor), anchor.index) >= first:
            message = f"anchor {anchor.index} is outside and is missing here"
            problem = Problem(anchor.origin, anchor.index, "anchor_index", message)
        if problem is not None:
            verified.problems = [*behind.values(), problem]
            return verified
        verified.count += 1
        verified.until_ms = max(verified.until_ms or 0, anchor.time_ms)
        verified.only += same is None
        verified.covered |= origins_in(anchor)
    verified.problems = list(behind.values())
    return verified


def _removed(missing: Problem, anchor: Anchor) -> Problem:
    """Return the problem that a running store still lacks entries although their anchor is old."""
    since = datetime.fromtimestamp(anchor.time_ms / 1000, UTC)
    message = f"{missing.message}, although this anchor is from {since:%Y-%m-%d %H:%M} UTC and the store is running"
    return replace(missing, message=message)


def _outside_problem(anchor: Anchor, keys: LogKeys, log: str, *, same: bool | None) -> Problem | None:
    index, epoch = anchor.index, epoch_in(log, anchor)
    origin = f"{log}/{max(0, epoch)}"
    try:
        check_anchor(anchor, keys.at(anchor.origin, index + 1))
    except AnchorError as error:
        return Problem(origin, index, "outside_anchor", f"in the copy from outside, {error}", kind_of(error))
    if epoch < 0:
        message = f"the anchor from outside belongs to {anchor.origin}"
        return Problem(origin, index, "outside_anchor", message, "deployment")
    if same is False:
        message = f"anchor {index} from outside is not the one stored here: two histories"
        return Problem(origin, index, "outside_anchor", message)
    return None


def gap_outside(outside: OutsideAnchors, surveyed: Survey, stored: StoredAnchors) -> str:
    """Return why the anchors from outside do not cover what those stored here cover; empty if they do."""
    last = surveyed.last
    if last is None:
        return outside.missing
    after = sum(_order(anchor) > _order(last) for anchor in stored.recent)
    if after <= RECENT:
        return ""
    newest = stored.recent[-1].index
    return f"the anchors from outside end at anchor {last.index} of {last.origin}: the ledger has {newest}"


def _order(anchor: Anchor) -> tuple[int, str, int]:
    return len(anchor.origin), anchor.origin, anchor.index
