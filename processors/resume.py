"""Where sealing resumes after a start or a rebalance, so that a ledger is never forked or begun twice.

Pure: the state of Kafka in, a head or a stop out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import StoppedError
from ..kafka.sealed_log import VerifiedBatch
from ..ledger.batch import Head
from ..ledger.entry import Genesis, epoch_of, origin_of
from ..ledger.note import Checkpoint


class SealingStoppedError(StoppedError):
    """This partition must not be sealed until a person has examined it. ``rule`` is the finding rule."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The state of one input partition and of its sealed partition in Kafka.

    Attributes:
        tail: the last batch in the sealed partition that has a valid note, or None if it is empty.
        sealed_begin: first offset of the sealed partition; above 0, batches were deleted.
        committed: the sealers' committed offset, or None.
        stored: whether the store has committed an offset in the sealed partition.
        anchored: the head of this partition in the last anchor, or None.
        input_begin, input_end: first offset and end of the input partition.
    """

    deployment: str
    topic: str
    partition: int
    topic_id: bytes
    tail: VerifiedBatch | None
    sealed_begin: int
    committed: int | None
    stored: bool
    anchored: Checkpoint | None
    input_begin: int
    input_end: int


def resume(state: PartitionState) -> Head:
    """Return the head from which sealing resumes.

    Raises:
        SealingStoppedError: resuming would fork the ledger, begin it twice, or leave a gap in it.
    """
    return _begin(state) if state.tail is None else _continue(state, state.tail.head)


def _begin(state: PartitionState) -> Head:
    where = f"{state.topic} partition {state.partition}"
    known = []
    if state.committed is not None:
        known.append(f"sealers have committed offset {state.committed}")
    if state.stored:
        known.append("the store has read from it")
    if state.anchored is not None:
        known.append(f"an anchor states {state.anchored.size} entries")
    if state.sealed_begin > 0:
        known.append(f"its first offset is {state.sealed_begin}")
    if known:
        raise SealingStoppedError(
            "sealed_topic_lost",
            f"the sealed partition of {where} is empty, yet {' and '.join(known)}: its batches are lost. "
            'Restore them (docs/operations.md, "Stopped partitions").',
        )
    origin = origin_of(state.deployment, state.topic, state.partition)
    return Head.at_genesis(Genesis(origin, state.topic_id, state.input_begin))


def _continue(state: PartitionState, head: Head) -> Head:
    where = f"{state.topic} partition {state.partition}"
    if state.anchored is not None and contradicts(state.anchored, head.checkpoint()):
        raise SealingStoppedError(
            "head_mismatch",
            f"an anchor states {state.anchored.size} entries of {state.anchored.origin}, root "
            f"{state.anchored.root.hex()}; the sealed partition ends with {head.size}, root "
            f"{head.frontier.root().hex()}: batches were lost or changed",
        )
    if head.genesis.topic_id != state.topic_id:
        raise SealingStoppedError(
            "topic_replaced",
            f"{where} was deleted and created again after it was sealed (topic id {head.genesis.topic_id.hex()}, now "
            f'{state.topic_id.hex()}). See docs/operations.md, "Stopped partitions".',
        )
    if state.committed is not None and state.committed != head.next_offset:
        raise SealingStoppedError(
            "offset_mismatch",
            f"sealers of {where} have committed offset {state.committed}, the sealed tail ends at "
            f"{head.next_offset}: one of them was changed from outside",
        )
    if state.input_begin > head.next_offset:
        raise SealingStoppedError(
            "input_expired",
            f"{where} begins at offset {state.input_begin}, sealing continues at {head.next_offset}: retention deleted "
            "records that were never sealed",
        )
    if state.input_end < head.next_offset:
        raise SealingStoppedError(
            "input_truncated",
            f"{where} ends at offset {state.input_end}, but is sealed up to {head.next_offset}: the topic lost records",
        )
    return head


def contradicts(anchored: Checkpoint, found: Checkpoint) -> bool:
    """Whether a log that had the head ``anchored`` cannot have the head ``found`` now. A later epoch may have any."""
    before, now = epoch_of(anchored.origin), epoch_of(found.origin)
    if before != now:
        return before > now
    return anchored.size > found.size or (anchored.size == found.size and anchored.root != found.root)
