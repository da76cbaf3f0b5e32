"""Opens the next epoch of the anchor log after the anchors topic lost anchors.

Its first anchor covers the head of the epoch before, like the heads of all logs, and so binds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...kafka.sealed_log import SealedLogs
from ...kafka.transactional_writer import TransactionalWriter
from ...ledger.anchor import Anchor, anchor_log, anchor_origin, append_anchor, encode_anchor
from ...ledger.entry import epoch_of
from ...ledger.keys import Signer
from ...ledger.merkle import EMPTY_ROOT, Frontier
from ...ledger.note import Checkpoint
from ...ledger.source_signature import SourceSigner
from ...schemas.topics import ANCHORS_TOPIC
from .plan import EpochRefusedError

Place = tuple[str, int]
"""Origin and index of an anchor."""


@dataclass(frozen=True, slots=True)
class AnchorEpochPlan:
    """The next epoch of the anchor log.

    Attributes:
        reason: why anchoring is stopped.
        place: the copy that holds the last anchor.
        bound: the last anchor; None if no copy holds one.
        missing: anchors of the old epoch that the store does not hold: they are written to the topic again first.
        losses: what is lost, one sentence each.
    """

    reason: str
    place: str
    bound: Anchor | None
    origin: str
    old: Checkpoint
    missing: tuple[Anchor, ...]
    losses: tuple[str, ...]


def plan_anchor_epoch(
    deployment: str,
    reason: str,
    last: Mapping[str, Anchor],
    notes: Mapping[Place, Mapping[str, str]],
    missing: Sequence[Anchor],
) -> AnchorEpochPlan:
    """Plan the next epoch of the anchor log.

    Args:
        last: the last verified anchor of each copy.
        notes: the notes of these anchors in each copy that holds them.
        missing: the anchors that the store does not hold.

    Raises:
        EpochRefusedError: two copies hold different anchors in the same place.
    """
    for (origin, index), by_copy in notes.items():
        if len(set(by_copy.values())) > 1:
            raise EpochRefusedError(
                f"{' and '.join(by_copy)} hold different anchors {index} of {origin}: two histories. Preserve them, "
                "and find out which one was forged (`grantledger verify`)"
            )
    losses: tuple[str, ...] = ()
    if not last:
        old = Checkpoint(anchor_origin(deployment), 0, EMPTY_ROOT)
        losses = ("no copy of the old anchors was found: all of them are lost",)
        return AnchorEpochPlan(reason, "", None, anchor_origin(deployment, 1), old, (), losses)
    place = max(last, key=lambda copy: (epoch_of(last[copy].origin), last[copy].index))
    bound = last[place]
    again = tuple(anchor for anchor in missing if anchor.origin == bound.origin)
    origin = anchor_origin(deployment, epoch_of(bound.origin) + 1)
    return AnchorEpochPlan(reason, place, bound, origin, bound.head(), again, losses)


class AnchorEpochWriter:
    """Writes the first anchor of a new epoch. A running anchor process is fenced off."""

    def __init__(self, logs: SealedLogs, signer: Signer, source_signer: SourceSigner) -> None:
        self._deployment, self._signer = logs.deployment, signer
        self._writer = TransactionalWriter(logs.cluster, f"{logs.deployment}-anchor", signer=logs.signer)

    def take_over(self) -> None:
        """Fence off the anchor process. Read the state that the plan relies on after this."""
        self._writer.init()

    def open(self, plan: AnchorEpochPlan, event: tuple[str, bytes, str], now: datetime) -> None:
        """Write the missing anchors, the first anchor of the epoch and the event about it in one transaction."""
        heads = plan.bound.heads() if plan.bound is not None else {}
        heads[anchor_log(self._deployment)] = plan.old
        time_ms = int(now.timestamp() * 1000)
        first, _ = append_anchor(Frontier(), plan.origin, time_ms, list(heads.values()), self._signer)
        topic, value, key = event
        self._writer.begin()
        for anchor in (*plan.missing, first):
            self._writer.produce(ANCHORS_TOPIC, encode_anchor(anchor), self._deployment, 0)
        self._writer.produce(topic, value, key, 0)
        self._writer.commit()
