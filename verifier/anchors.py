"""Steps 11 and 12: the anchor log, and the logs compared with the checkpoints that anchors cover.

Anchors are read one after the other, and twice: first for the sizes at which logs are compared, then to verify them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..ledger.anchor import Anchor, AnchorError, anchor_log, check_anchor, check_extends
from ..ledger.entry import split_origin
from ..ledger.keys import LogKeys
from ..ledger.note import Checkpoint, NoteError
from .logs import VerifiedLog, VerifiedRoots, kind_of
from .scratch import Scratch
from .steps import Problem

Logs = Mapping[str, VerifiedLog]
Lost = Mapping[str, Checkpoint | None]
RECENT = 2
"""Stored anchors that a file from outside may lack: targets receive an anchor after the ledger."""


@dataclass(slots=True)
class Survey:
    """What is known of anchors once they have been read for the first time.

    Attributes:
        first: epoch and index of the first anchor. (0, 0) unless a person opened an epoch of the anchor log: nothing
            else explains a missing beginning.
        reopened: whether a person did.
        last: the last anchor that was read.
        unreadable: lines that are not anchors.
    """

    first: tuple[int, int] = (0, 0)
    reopened: bool = False
    last: Anchor | None = None
    unreadable: int = 0

    def covered_sizes(self) -> dict[str, int]:
        """Return the sizes of the logs of entries that the last anchor covers; none if it is malformed."""
        if self.last is None:
            return {}
        own, _, _ = self.last.origin.rpartition("/")  # an anchor also covers the epoch before of its own log
        try:
            heads = self.last.checkpoints()
        except NoteError:  # step 13 reports it
            return {}
        return {head.origin: head.size for head in heads if head.origin.rpartition("/")[0] != own}


def survey(anchors: Iterable[Anchor | None], deployment: str, scratch: Scratch) -> Survey:
    """Read anchors for the first time, and keep the sizes that they cover."""
    found, log, first = Survey(), anchor_log(deployment), (1 << 63, 0)
    for anchor in anchors:
        if anchor is None:
            found.unreadable += 1
            continue
        for origin, size in _sizes_in(anchor):
            scratch.want(origin, size)
        if (epoch := epoch_in(log, anchor)) >= 0:
            found.reopened |= epoch > 0
            first = min(first, (epoch, anchor.index))
        found.last = anchor
    if found.reopened:
        found.first = first
    return found


def _sizes_in(anchor: Anchor) -> Iterator[tuple[str, int]]:
    """Yield the sizes that an anchor may cover. Steps 11 and 13 report a malformed body."""
    for body in anchor.bodies:
        origin, _, rest = body.partition("\n")
        size = rest.partition("\n")[0]
        if len(size) < 20 and size.isascii() and size.isdigit():
            yield origin, int(size)


@dataclass(slots=True)
class StoredAnchors:
    """The anchors stored in the ledger, recorded while they are read.

    Attributes:
        before_ms: later ones were stored after the anchors from outside were read, in milliseconds since 1970.
        recent: the last of the others.
    """

    scratch: Scratch
    before_ms: int
    recent: deque[Anchor] = field(default_factory=lambda: deque(maxlen=RECENT + 1))

    def recorded(self, anchors: Iterable[Anchor]) -> Iterator[Anchor]:
        """Record and yield each anchor."""
        for anchor in anchors:
            self.scratch.add_anchor(anchor)
            if anchor.time_ms <= self.before_ms:
                self.recent.append(anchor)
            yield anchor


@dataclass(slots=True)
class VerifiedAnchors:
    """The anchors stored in the ledger, up to the first problem.

    Attributes:
        roots: the heads of the anchor log, by origin.
        covered: the logs that the anchors cover.
    """

    count: int = 0
    problem: Problem | None = None
    roots: dict[str, VerifiedRoots] = field(default_factory=dict)
    covered: set[str] = field(default_factory=set)


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
    anchors: Iterable[Anchor],
    keys: LogKeys,
    logs: Logs,
    deployment: str,
    scratch: Scratch,
    *,
    lost: Lost | None = None,
    reopened: bool = False,
    since: Checkpoint | None = None,
) -> VerifiedAnchors:
    """Verify the anchor log of a deployment from its beginning, and the logs against it.

    Args:
        since: the anchor log up to the first of the anchors; None if that is the very first one.
        lost: see :func:`lost_heads`; None if nothing may be missing, the beginning of the anchor log included.
        reopened: whether a person opened an epoch of the anchor log.
    """
    log, reopened = anchor_log(deployment), reopened and lost is not None
    last: Anchor | None = None
    verified = VerifiedAnchors()
    for anchor in anchors:
        verified.problem = _anchor_problem(last, anchor, keys, log, since, reopened=reopened) or next(
            check_covered(anchor, logs, lost), None
        )
        if verified.problem is not None:
            break
        if last is None or last.origin != anchor.origin:
            verified.roots[anchor.origin] = VerifiedRoots(scratch.roots_of(anchor.origin))
        head = anchor.head()
        verified.roots[anchor.origin].add(head.size, head.root)
        verified.covered |= origins_in(anchor)
        verified.count += 1
        last = anchor
    if since is not None and last is None and verified.problem is None:
        message = f"anchor {since.size - 1} and those after it are missing"
        verified.problem = Problem(since.origin, since.size - 1, "anchor_index", message)
    return verified


def _anchor_problem(
    last: Anchor | None, anchor: Anchor, keys: LogKeys, log: str, since: Checkpoint | None, *, reopened: bool
) -> Problem | None:
    """Step 11, Anchors: dense indices, and every anchor is signed and continues the ones before."""
    if epoch_in(log, anchor) < 0:
        message = f"an anchor of {anchor.origin} is among them"
        return Problem(f"{log}/0", last.index + 1 if last else 0, "anchor", message, "deployment")
    if (problem := _index_problem(last, anchor, log, since, reopened=reopened)) is not None:
        return problem
    try:
        check_anchor(anchor, keys.at(anchor.origin, anchor.index + 1))
        if last is None and since is not None:
            if anchor.head() != since:
                return differing(
                    anchor.head().root, since.size, since, "an earlier verification found", "remembered_head"
                )
        elif last is not None or not reopened:
            check_extends(last, anchor)
    except AnchorError as error:
        return Problem(anchor.origin, anchor.index, "anchor", str(error), kind_of(error))
    return None


def epoch_in(log: str, anchor: Anchor) -> int:
    """Return the epoch of an anchor; -1 if it belongs to another log."""
    try:
        name, epoch = split_origin(anchor.origin)
    except ValueError:
        return -1
    return epoch if name == log else -1


def _index_problem(
    last: Anchor | None, anchor: Anchor, log: str, since: Checkpoint | None, *, reopened: bool
) -> Problem | None:
    if last is None and since is not None:
        origin, wanted = since.origin, since.size - 1
    elif last is None:
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
        elif log.problem is None and (root := log.roots.at(size)) != checkpoint.root:
            yield differing(root, log.head[0], checkpoint, f"anchor {anchor.index} covers", "anchored_head")


def differing(root: bytes | None, here: int, head: Checkpoint, covers: str, check: str) -> Problem:
    """Return the problem that a log does not contain a head: it is shorter, or another one.

    Args:
        root: of the log at that size, if it has a checkpoint there.
        here: the size of the log.
    """
    if head.size > here:
        return Problem(head.origin, here, "truncated", f"{covers} {head.size} entries, only {here} are here")
    if root is None:
        message = f"{covers} a checkpoint of {head.size} entries that is not here"
    else:
        message = f"{covers} {head.size} entries with another root: history was rewritten"
    return Problem(head.origin, head.size - 1, check, message)


def origins_in(anchor: Anchor) -> set[str]:
    """Return the logs that a sound anchor covers."""
    return {body.partition("\n")[0] for body in anchor.bodies}
