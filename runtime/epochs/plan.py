"""Plans a new epoch of a stopped log: which head its genesis binds, where it begins, and what is lost.

Pure: the state of Kafka and the heads that the copies of the log contain go in, a plan or a refusal comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...base.errors import StoppedError
from ...ledger.entry import Genesis, epoch_of, origin_of
from ...ledger.merkle import EMPTY_ROOT
from ...ledger.note import Checkpoint
from ...processors.resume import PartitionState, SealingStoppedError

IN_KAFKA, IN_STORE, IN_ANCHORS, IN_FILE = "the sealed topic", "the store", "the last anchor", "the anchor file"


class EpochRefusedError(StoppedError):
    """No epoch can be opened: the copies of the log contradict one another. A person must investigate."""


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A signed head of a log in one of its copies.

    Attributes:
        place: the copy, for people.
        next_offset: the input offset from which to read next, if the copy contains it.
        topic_id: id of the input topic that the log is bound to, if the copy contains it.
        roots: roots at smaller sizes of the same epoch.
        complete_from: from this size on, every checkpoint of the copy is in ``roots``.
    """

    place: str
    checkpoint: Checkpoint
    next_offset: int | None = None
    topic_id: bytes | None = None
    roots: Mapping[int, bytes] = field(default_factory=dict)
    complete_from: int = 1 << 63


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """A new epoch of a stopped log.

    Attributes:
        stop: why the log is stopped.
        bound: the head that the genesis binds; None if no copy of the old epoch is left.
        losses: what is lost or repeated, one sentence each.
    """

    topic: str
    partition: int
    stop: SealingStoppedError
    genesis: Genesis
    old: Checkpoint
    bound: KnownHead | None
    losses: tuple[str, ...]


def plan_epoch(
    state: PartitionState, stop: SealingStoppedError, heads: Sequence[KnownHead], first_unsealed: int
) -> EpochPlan:
    """Plan the next epoch of a stopped log.

    Args:
        heads: all known heads of the log, of any epoch.
        first_unsealed: first offset of the input partition whose record is not in the sealed topic.

    Raises:
        EpochRefusedError: two copies contradict each other.
    """
    epoch = max((epoch_of(head.checkpoint.origin) for head in heads), default=0)
    heads = [head for head in heads if epoch_of(head.checkpoint.origin) == epoch]
    _check_one_history(heads)
    bound = max(heads, key=lambda head: (head.checkpoint.size, head.next_offset is not None), default=None)
    unknown = Checkpoint(origin_of(state.deployment, state.topic, state.partition, epoch), 0, EMPTY_ROOT)
    old = bound.checkpoint if bound is not None else unknown
    begin, losses = _begin(state, heads, first_unsealed)
    losses = [*_lost_entries(heads, old), *losses]
    if bound is None:
        losses.insert(0, "no copy of the old log was found: all of its entries are lost, however many there were")
    origin = origin_of(state.deployment, state.topic, state.partition, epoch + 1)
    genesis = Genesis(origin, state.topic_id, begin, old.size, old.root)
    return EpochPlan(state.topic, state.partition, stop, genesis, old, bound, tuple(losses))


def _check_one_history(heads: Sequence[KnownHead]) -> None:
    for larger in heads:
        for smaller in heads:
            size, root = smaller.checkpoint.size, smaller.checkpoint.root
            if size == larger.checkpoint.size:
                same = root == larger.checkpoint.root
            elif size < larger.checkpoint.size and (size in larger.roots or size >= max(1, larger.complete_from)):
                same = larger.roots.get(size) == root
            else:
                continue
            if not same:
                raise EpochRefusedError(
                    f"{smaller.place} has {size} entries of {smaller.checkpoint.origin} with the root {root.hex()}; "
                    f"{larger.place} has another history. Preserve both, and find out which one was forged "
                    "(`grantledger verify`)"
                )


def _begin(state: PartitionState, heads: Sequence[KnownHead], first_unsealed: int) -> tuple[int, list[str]]:
    """Return the first input offset of the new epoch, and what is lost or repeated."""
    topic_ids = {head.topic_id for head in heads} - {None}
    if topic_ids and state.topic_id not in topic_ids:
        known = max((head.next_offset or 0 for head in heads), default=0)
        return state.input_begin, [f"records from offset {known} on of the deleted input topic, if there were any"]
    offsets = [head.next_offset for head in heads if head.next_offset is not None]
    if not offsets:
        return state.input_begin, ["no copy names the next offset: every record that the input topic has is sealed"]
    resume_at = max(offsets)
    if state.input_end < resume_at:
        message = f"the input topic ends at offset {state.input_end}, but was sealed up to {resume_at}"
        return first_unsealed, [f"{message}: sealing continues at offset {first_unsealed}"]
    if state.input_begin > resume_at:
        return state.input_begin, [f"records at offsets {resume_at} to {state.input_begin - 1}: Kafka deleted them"]
    return resume_at, []


def _lost_entries(heads: Sequence[KnownHead], old: Checkpoint) -> list[str]:
    sizes = {head.place: head.checkpoint.size for head in heads}
    in_kafka, in_store = sizes.get(IN_KAFKA, 0), sizes.get(IN_STORE, 0)
    copied = max(in_kafka, in_store)
    losses = []
    if in_kafka < in_store:
        losses.append(f"entries {in_kafka} to {in_store - 1} are only in the store, no longer in Kafka")
    if copied < old.size:
        losses.append(
            f"entries {copied} to {old.size - 1} were anchored and are in no copy: `grantledger verify` will report "
            "them. Their records are sealed again if the input topic still has them"
        )
    return losses
