"""Steps 11 to 13: the anchor log, and the logs compared with the checkpoints that anchors cover. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ledger.anchor import Anchor, AnchorError, anchor_log, check_anchor, check_extends
from ..ledger.entry import epoch_of, split_origin
from ..ledger.keys import LogKeys
from ..ledger.note import Checkpoint
from .logs import VerifiedLog
from .steps import Problem

Logs = Mapping[str, VerifiedLog]
Lost = Mapping[str, Checkpoint | None]


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
) -> tuple[int, Problem | None]:
    """Verify the anchor log of a deployment from its beginning, and the logs against it.

    Args:
        lost: see :func:`lost_heads`; None if nothing may be missing, the beginning of the anchor log included.

    Returns:
        The number of sound anchors, and the first problem.
    """
    log = anchor_log(deployment)
    reopened = lost is not None and any(_epoch(anchor, log) > 0 for anchor in anchors)
    last: Anchor | None = None
    for count, anchor in enumerate(anchors):
        epoch = _epoch(anchor, log)
        # Step 11, Anchors: dense indices, and every anchor is signed and continues the ones before.
        if epoch < 0:
            message = f"an anchor of {anchor.origin} is among them"
            return count, Problem(f"{log}/0", last.index + 1 if last else 0, "anchor", message)
        if (problem := _index_problem(last, anchor, log, reopened=reopened)) is not None:
            return count, problem
        try:
            check_anchor(anchor, keys.at(anchor.origin, anchor.index + 1))
            if last is not None or not reopened:
                check_extends(last, anchor)
        except AnchorError as error:
            return count, Problem(anchor.origin, anchor.index, "anchor", str(error))
        if (problem := check_covered(anchor, logs, lost)) is not None:
            return count, problem
        last = anchor
    return len(anchors), None


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


def check_covered(anchor: Anchor, logs: Logs, lost: Lost | None = None) -> Problem | None:
    """Step 12, Anchored heads: every log contains the checkpoint that the anchor covers.

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
            return Problem(origin, min(size, bound.size), "anchored_head", message)
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
    outside: Sequence[Anchor],
    inside: Mapping[tuple[str, int], Anchor],
    keys: LogKeys,
    logs: Logs,
    deployment: str,
    *,
    lost: Lost | None,
    complete: bool,
) -> tuple[int, Problem | None]:
    """Step 13, Outside anchors: each one is signed, is the one stored here, and is covered by the logs.

    Args:
        inside: the anchors stored here, by origin and index.
        lost: see :func:`lost_heads`; None if nothing may be missing.
        complete: every anchor outside must be stored here as well, from the first one stored here on.

    Returns:
        The number of sound anchors, and the first problem.
    """
    log = anchor_log(deployment)
    first = min(((epoch_of(origin), index) for origin, index in inside), default=(0, 0))
    if first[0] == 0 and not any(epoch_of(origin) for origin, _ in inside):
        first = (0, 0)  # only an opened epoch explains a missing beginning
    for count, anchor in enumerate(outside):
        index, epoch, stored = anchor.index, _epoch(anchor, log), inside.get((anchor.origin, anchor.index))
        origin = f"{log}/{max(0, epoch)}"
        try:
            check_anchor(anchor, keys.at(anchor.origin, index + 1))
        except AnchorError as error:
            return count, Problem(origin, index, "outside_anchor", f"in the copy from outside, {error}")
        if epoch < 0:
            message = f"the anchor from outside belongs to {anchor.origin}"
            return count, Problem(origin, index, "outside_anchor", message)
        if stored is not None and stored != anchor:
            message = f"anchor {index} from outside is not the one stored here: two histories"
            return count, Problem(origin, index, "outside_anchor", message)
        if (problem := check_covered(anchor, logs, lost)) is not None:
            return count, problem
        if stored is None and complete and (epoch, index) >= first:
            return count, Problem(origin, index, "anchor_index", f"anchor {index} is outside and is missing here")
    return len(outside), None
