"""The anchor log: each entry covers the latest checkpoint of every log (docs/ledger.md, "Anchors")."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from ..base.times import micros_of
from . import single_object
from .entry import leaf_hash, split_origin
from .keys import Signer
from .merkle import Frontier, root_of
from .note import Checkpoint, NoteError, open_own_checkpoint, sign_checkpoint


class AnchorError(ValueError):
    """An anchor cannot be read, contradicts itself, or is not signed by the log key."""


class AnchorDiscontinuityError(AnchorError):
    """The log key signed this anchor, but it does not continue the anchor log."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One record of ``access.anchors``. ``time_ms``: milliseconds since 1970 by the anchor process's clock."""

    origin: str
    index: int
    time_ms: int
    bodies: tuple[str, ...]
    entry: bytes
    frontier: bytes
    note: str

    def checkpoints(self) -> list[Checkpoint]:
        """Parse the checkpoint bodies; raises NoteError if one is malformed."""
        return [Checkpoint.parse(body) for body in self.bodies]

    def heads(self) -> dict[str, Checkpoint]:
        """Return the checkpoints by origin without the epoch; raises NoteError if one is malformed."""
        return {split_origin(head.origin)[0]: head for head in self.checkpoints()}

    def head(self) -> Checkpoint:
        """Return the head of the anchor log after this anchor."""
        frontier = Frontier.unpack(self.index + 1, self.frontier)
        return Checkpoint(self.origin, frontier.size, frontier.root())


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer of a target for one anchor; ``error`` is empty if the target accepted it."""

    origin: str
    index: int
    target: str
    at: datetime
    receipt: bytes
    error: str = ""


class AnchorTarget(Protocol):
    """A place outside the pipeline that keeps anchors, so that operators cannot change them unnoticed."""

    @property
    def name(self) -> str:
        """Its name in the setting ``anchor_targets``."""
        ...

    def last(self) -> Anchor | None:
        """Return the last anchor that the target holds, unverified; None if it holds none.

        Raises:
            AnchorTargetError: the target does not answer.
        """
        ...

    def publish(self, anchor: Anchor) -> bytes:
        """Write one committed anchor durably and return the receipt. Idempotent: a crash repeats the call.

        Raises:
            AnchorTargetError: the target did not accept it; the message contains the reason.
            AnchorGapError: the target lacks anchors before this one.
            AnchorConflictError: the anchor contradicts the ones that the target holds.
        """
        ...


class AnchorTargetError(Exception):
    """A target did not accept an anchor."""


class AnchorGapError(AnchorTargetError):
    """A target lacks the anchors from ``index`` on. Publish them first."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class AnchorConflictError(AnchorTargetError):
    """A target holds another history. Publish nothing more to it: a person must investigate."""


def anchor_log(deployment: str) -> str:
    """Return the origin of a deployment's anchor log without the epoch."""
    return f"{deployment}/anchors/0"


def anchor_origin(deployment: str, epoch: int = 0) -> str:
    """Return the origin of an epoch of a deployment's anchor log."""
    return f"{anchor_log(deployment)}/{epoch}"


def anchor_entry(time_ms: int, bodies: Sequence[str]) -> bytes:
    """Return the leaf data over checkpoint bodies, which must be sorted by the bytes of their origins."""
    root = root_of([leaf_hash(body.encode()) for body in bodies])
    return b"GLA1" + struct.pack(">qI", time_ms, len(bodies)) + root


def append_anchor(
    frontier: Frontier, origin: str, time_ms: int, checkpoints: Sequence[Checkpoint], signer: Signer
) -> tuple[Anchor, Frontier]:
    """Return the next anchor over the latest checkpoints, and the anchor log's frontier after it."""
    bodies = tuple(c.body() for c in sorted(checkpoints, key=lambda c: c.origin.encode()))
    entry = anchor_entry(time_ms, bodies)
    after = frontier.copy()
    after.extend(leaf_hash(entry))
    note = sign_checkpoint(Checkpoint(origin, after.size, after.root()), signer)
    return Anchor(origin, frontier.size, time_ms, bodies, entry, after.pack(), note), after


def check_anchor(anchor: Anchor, public_key: bytes) -> Frontier:
    """Verify one anchor on its own and return the anchor log's frontier after it.

    Raises:
        AnchorError: entry, bodies, frontier and note contradict one another, or this key did not sign the note.
    """
    where = f"anchor {anchor.index} of {anchor.origin}"
    try:
        checkpoints = anchor.checkpoints()
        frontier = Frontier.unpack(anchor.index + 1, anchor.frontier)
        stated = open_own_checkpoint(anchor.note, public_key)
    except (NoteError, ValueError) as error:
        raise AnchorError(f"{where}: {error}") from error
    origins = [c.origin.encode() for c in checkpoints]
    if origins != sorted(set(origins)):
        raise AnchorError(f"{where}: the checkpoint bodies are not sorted by origin, each origin once")
    if anchor.entry != anchor_entry(anchor.time_ms, anchor.bodies):
        raise AnchorError(f"{where}: the entry does not follow from the time and the checkpoint bodies")
    if stated != Checkpoint(anchor.origin, frontier.size, frontier.root()):
        raise AnchorError(f"{where}: the signed checkpoint is not the head of the frontier")
    return frontier


def check_extends(last: Anchor | None, anchor: Anchor) -> None:
    """Check that an anchor is the next one after the last one: its index, its tree, and what a new epoch binds.

    Both are verified with :func:`check_anchor`. A new epoch of the anchor log covers the head of the epoch before, like
    the heads of all logs. The head may be further than ``last``: a person bound the anchors that another copy holds.

    Args:
        last: None at the beginning of the anchor log, or of the copy.

    Raises:
        AnchorDiscontinuityError: it is not.
    """
    where = f"anchor {anchor.index} of {anchor.origin}"
    before, wanted = Frontier(), 0
    if last is not None and last.origin == anchor.origin:
        before, wanted = Frontier.unpack(last.index + 1, last.frontier), last.index + 1
    elif last is not None:
        _check_bound(last.head(), anchor)
    if anchor.index != wanted:
        raise AnchorDiscontinuityError(f"{where} is where anchor {wanted} comes next")
    before.extend(leaf_hash(anchor.entry))
    if before.pack() != anchor.frontier:
        raise AnchorDiscontinuityError(f"{where} does not continue the ones before it: two histories")


def _check_bound(head: Checkpoint, anchor: Anchor) -> None:
    (log, epoch), (of_log, of_epoch) = split_origin(head.origin), split_origin(anchor.origin)
    if log != of_log:
        raise AnchorDiscontinuityError(f"{anchor.origin} is not an epoch of the anchor log {log}")
    bound = anchor.heads().get(log)
    if of_epoch != epoch + 1 or bound is None or bound.origin != head.origin:
        raise AnchorDiscontinuityError(f"{anchor.origin} does not bind the head of {head.origin}")
    if bound.size < head.size or (bound.size == head.size and bound.root != head.root):
        raise AnchorDiscontinuityError(
            f"{anchor.origin} binds {bound.size} anchors of {head.origin}, root {bound.root.hex()}; there are "
            f"{head.size}, root {head.root.hex()}"
        )


def encode_anchor(anchor: Anchor) -> bytes:
    """Encode an anchor as the value of a Kafka record."""
    return single_object.encode("anchor", asdict(anchor) | {"time": anchor.time_ms})


def decode_anchor(value: bytes) -> Anchor:
    """Decode an anchor without verifying it: :func:`check_anchor` does that.

    Raises:
        AnchorError: not an anchor.
    """
    datum = _decode("anchor", value)
    time_ms = micros_of(datum.pop("time")) // 1000
    return Anchor(**datum | {"time_ms": time_ms, "bodies": tuple(datum["bodies"])})


def encode_receipt(receipt: Receipt) -> bytes:
    """Encode a receipt as the value of a Kafka record."""
    return single_object.encode("receipt", asdict(receipt))


def decode_receipt(value: bytes) -> Receipt:
    """Decode a receipt; raise AnchorError if it is none."""
    return Receipt(**_decode("receipt", value))


def _decode(name: str, value: bytes) -> dict[str, Any]:
    try:
        return single_object.decode(name, value)
    except ValueError as error:
        raise AnchorError(str(error)) from error
