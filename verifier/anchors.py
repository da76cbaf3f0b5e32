"""Steps 11 to 13: the anchor log, and the logs compared with the checkpoints that anchors cover. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..ledger.anchor import Anchor, AnchorError, check_anchor
from ..ledger.entry import leaf_hash
from ..ledger.keys import LogKeys
from ..ledger.merkle import Frontier
from .logs import VerifiedLog
from .steps import Problem

Logs = Mapping[str, VerifiedLog]


def verify_anchors(anchors: Iterable[Anchor], keys: LogKeys, logs: Logs, origin: str) -> tuple[int, Problem | None]:
    """Verify the anchor log, whose name is ``origin``, from its beginning, and the logs against it.

    Returns:
        The number of sound anchors, and the first problem.
    """
    frontier = Frontier()
    for anchor in anchors:
        index = frontier.size
        # Step 11, Anchors: dense indices, and every anchor is signed and continues the ones before.
        if anchor.origin != origin:
            return index, Problem(origin, index, "anchor", f"an anchor of {anchor.origin} is among them")
        if anchor.index != index:
            double = anchor.index < index
            message = f"anchor {anchor.index} is stored more than once" if double else f"anchor {index} is missing"
            return index, Problem(origin, min(anchor.index, index), "anchor_index", message)
        try:
            after = check_anchor(anchor, keys.at(origin, index + 1))
        except AnchorError as error:
            return index, Problem(origin, index, "anchor", str(error))
        whole = frontier.copy()
        whole.extend(leaf_hash(anchor.entry))
        if after.root() != whole.root():
            return index, Problem(origin, index, "anchor", "the anchor does not continue the ones before it")
        if (problem := check_covered(anchor, logs)) is not None:
            return index, problem
        frontier = whole
    return frontier.size, None


def check_covered(anchor: Anchor, logs: Logs) -> Problem | None:
    """Step 12, Anchored heads: every log contains the checkpoint that the anchor covers.

    Logs with a problem are left out: the anchor shows nothing new about them.
    """
    for checkpoint in anchor.checkpoints():
        origin, size = checkpoint.origin, checkpoint.size
        log = logs.get(origin)
        if log is None:
            if size == 0:
                continue
            return Problem(origin, 0, "truncated", f"anchor {anchor.index} covers this log, and none of it is here")
        if log.problem is not None or log.roots.get(size) == checkpoint.root:
            continue
        here = log.head[0]
        if size > here:
            message = f"anchor {anchor.index} covers {size} entries, only {here} are here"
            return Problem(origin, here, "truncated", message)
        if size not in log.roots:
            message = f"anchor {anchor.index} covers a checkpoint of {size} entries that is not here"
        else:
            message = f"anchor {anchor.index} covers {size} entries with another root: history was rewritten"
        return Problem(origin, size - 1, "anchored_head", message)
    return None


def verify_outside(
    outside: Sequence[Anchor], inside: Mapping[int, Anchor], keys: LogKeys, logs: Logs, origin: str, *, complete: bool
) -> tuple[int, Problem | None]:
    """Step 13, Outside anchors: each one is signed, is the one stored here, and is covered by the logs.

    Args:
        inside: the anchors stored here, by index.
        complete: every anchor outside must be stored here as well.

    Returns:
        The number of sound anchors, and the first problem.
    """
    for count, anchor in enumerate(outside):
        index, stored = anchor.index, inside.get(anchor.index)
        try:
            check_anchor(anchor, keys.at(anchor.origin, index + 1))
        except AnchorError as error:
            return count, Problem(origin, index, "outside_anchor", f"in the copy from outside, {error}")
        if anchor.origin != origin:
            message = f"the anchor from outside belongs to {anchor.origin}"
            return count, Problem(origin, index, "outside_anchor", message)
        if stored is not None and stored != anchor:
            message = f"anchor {index} from outside is not the one stored here: two histories"
            return count, Problem(origin, index, "outside_anchor", message)
        if (problem := check_covered(anchor, logs)) is not None:
            return count, problem
        if stored is None and complete:
            return count, Problem(origin, index, "anchor_index", f"anchor {index} is outside and is missing here")
    return len(outside), None
