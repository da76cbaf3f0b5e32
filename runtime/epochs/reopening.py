"""Finds the stopped logs of a deployment, and opens their next epochs."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ...base.errors import StoppedError, UsageError
from ...kafka.anchor_log import last_anchor
from ...kafka.identity import identify_topics
from ...kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ...kafka.source_keys_reader import SourceKeysReader
from ...kafka.topics import add_partitions
from ...ledger.anchor import Anchor, AnchorError, anchor_log, check_anchor
from ...ledger.entry import epoch_of
from ...ledger.keys import Signer
from ...ledger.source_signature import SourceSigner
from ...processors.anchor_state import lost_anchors
from ...schemas.codec import EventEncoder
from ...schemas.event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, OpenedEpoch
from ...schemas.topics import ANCHORS_TOPIC, INPUT_TOPICS, sealed
from ...sinks.clickhouse import Ask
from ...sinks.evidence import stored_anchor, stored_anchor_note
from ...sinks.file_target import FileTarget, read_anchor_file
from ..operator_events import epoch_opened
from ..settings import Settings
from .anchors import AnchorEpochPlan, AnchorEpochWriter, Place, plan_anchor_epoch
from .partitions import EpochWriter, FoundStop, find_stops, first_unsealed, kafka_head
from .plan import IN_ANCHORS, IN_FILE, IN_STORE, EpochPlan, EpochRefusedError, KnownHead, plan_epoch
from .stored_heads import stored_head


@dataclass(frozen=True, slots=True)
class PartitionCountPlan:
    """An input topic and its sealed topic have different partition counts: the smaller one gets the missing ones."""

    topic: str
    smaller: str
    now: int
    wanted: int


Plan = EpochPlan | AnchorEpochPlan | PartitionCountPlan


def log_name(plan: Plan) -> str:
    """Return the name by which a person selects the stopped log."""
    if isinstance(plan, EpochPlan):
        return f"{plan.topic}/{plan.partition}"
    return ANCHORS_TOPIC if isinstance(plan, AnchorEpochPlan) else plan.topic


class Reopening:
    """The stopped logs of a deployment.

    Args:
        ask: queries the store; None if the store must not or cannot be asked.
    """

    def __init__(self, settings: Settings, logs: SealedLogs, ask: Ask | None) -> None:
        self._logs, self._cluster, self._deployment = logs, logs.cluster, logs.deployment
        self._ask = ask
        self._path = settings.anchor_path

    def plans(self) -> list[Plan]:
        """Return the plan for each stop, the anchor log last.

        Raises:
            EpochRefusedError: copies of a log contradict one another.
        """
        identities = identify_topics(self._cluster, [name for topic in INPUT_TOPICS for name in (topic, sealed(topic))])
        counts: list[Plan] = []
        for topic in INPUT_TOPICS:
            of_input, of_sealed = identities[topic].partitions, identities[sealed(topic)].partitions
            if of_input != of_sealed:
                fewer, more = sorted((of_input, of_sealed))
                if topic != ACTIVITY_TOPIC and more > (wanted := self._on_record(topic)):
                    name, remedy = topic, f"create it again with {wanted}, send the records of the others again"
                    if of_sealed == more:
                        name, remedy = sealed(topic), f"restore it from a copy, with {wanted}"
                    raise EpochRefusedError(
                        f"{name} must have {wanted} partition(s) and has {more}: {remedy}, and run this command then"
                    )
                smaller = topic if of_input < of_sealed else sealed(topic)
                counts.append(PartitionCountPlan(topic, smaller, fewer, more))
        if counts:
            return counts
        anchors = self._anchors()
        anchored = anchors[IN_ANCHORS].heads() if IN_ANCHORS in anchors else {}
        found: list[Plan] = [self._plan(one, anchors) for one in find_stops(self._logs, identities, anchored)]
        if (plan := self._plan_anchors(anchors)) is not None:
            found.append(plan)
        return found

    def _on_record(self, topic: str) -> int:
        """Return how many partitions the ledger was created with; of the lifecycle, that is a sealed entry."""
        if topic != LIFECYCLE_TOPIC:
            return 1
        reader = SourceKeysReader(self._logs)
        try:
            return reader.until(int(time.time() * 1000)).lifecycle_shards
        except SealedLogStoppedError as error:
            raise EpochRefusedError(f"the number of lifecycle shards on record cannot be read: {error}") from error
        finally:
            reader.close()

    def _plan(self, found: FoundStop, anchors: dict[str, Anchor]) -> EpochPlan:
        state = found.state
        log = f"{self._deployment}/{state.topic}/{state.partition}"
        heads = [
            KnownHead(place, head) for place, anchor in anchors.items() if (head := anchor.heads().get(log)) is not None
        ]
        sizes = [head.checkpoint.size for head in heads]
        stored = stored_head(self._ask, self._logs.keys, log, sizes) if self._ask is not None else None
        known = [head.checkpoint for head in (*heads, stored) if head is not None]
        in_kafka = kafka_head(self._logs, (state.topic, state.partition), known)
        if self._ask is not None and in_kafka is not None:  # a truncated topic may end at a size that no anchor has
            stored = stored_head(self._ask, self._logs.keys, log, [*sizes, in_kafka.checkpoint.size])
        heads += [head for head in (stored, in_kafka) if head is not None]
        truncated = any(head.next_offset is not None and head.next_offset > state.input_end for head in heads)
        unsealed = first_unsealed(self._logs, state) if truncated else state.input_end
        return plan_epoch(state, found.stop, heads, unsealed)

    def _anchors(self) -> dict[str, Anchor]:
        """Return the last verified anchor of each copy."""
        found = {}
        # Anchors reach the topic first. Read last, it is not behind the copies while anchoring goes on.
        in_file = self._verified(FileTarget(self._path).last(), str(self._path))
        log = anchor_log(self._deployment)
        in_store = self._verified(stored_anchor(self._ask, log), "the store") if self._ask is not None else None
        try:
            in_topic = last_anchor(self._logs)
        except SealedLogStoppedError:
            in_topic = None
        for place, anchor in ((IN_ANCHORS, in_topic), (IN_FILE, in_file), (IN_STORE, in_store)):
            if anchor is not None and anchor.origin.startswith(f"{log}/"):
                found[place] = anchor
        return found

    def _verified(self, anchor: Anchor | None, place: str) -> Anchor | None:
        try:
            if anchor is not None:
                check_anchor(anchor, self._logs.keys.at(anchor.origin, anchor.index + 1))
        except AnchorError as error:
            raise EpochRefusedError(f"the last anchor in {place} does not verify: {error}") from error
        return anchor

    def _plan_anchors(self, anchors: dict[str, Anchor]) -> AnchorEpochPlan | None:
        last = anchors.get(IN_ANCHORS)
        traces = lost_anchors(self._logs, last, {name: one for name, one in anchors.items() if name != IN_ANCHORS})
        if not traces:
            return None
        in_file = list(read_anchor_file(self._path)) if IN_FILE in anchors else []
        notes: dict[Place, dict[str, str]] = {}
        for place, anchor in anchors.items():
            notes.setdefault((anchor.origin, anchor.index), {})[place] = anchor.note
        for (origin, index), by_copy in notes.items():
            for one in in_file:
                if (one.origin, one.index) == (origin, index):
                    by_copy[IN_FILE] = one.note
            if self._ask is not None and (note := stored_anchor_note(self._ask, origin, index)) is not None:
                by_copy[IN_STORE] = note
        known = [anchors[place] for place in (IN_ANCHORS, IN_STORE) if place in anchors]
        reached = max(((epoch_of(one.origin), one.index) for one in known), default=(0, -1))
        missing = [one for one in in_file if (epoch_of(one.origin), one.index) > reached]
        return plan_anchor_epoch(self._deployment, "; ".join(traces), anchors, notes, missing)


def open_epochs(
    reopening: Reopening,
    logs: SealedLogs,
    signer: Signer,
    source_signer: SourceSigner,
    shown: Sequence[Plan],
    *,
    person: str,
    reason: str,
) -> None:
    """Carry out plans that a person has confirmed, after checking that nothing has changed since.

    Raises:
        StoppedError: the plans are no longer the same.
    """
    partitions, anchors = EpochWriter(logs, signer, source_signer), AnchorEpochWriter(logs, signer, source_signer)
    names = {log_name(plan) for plan in shown}
    if any(isinstance(plan, EpochPlan) for plan in shown):
        partitions.take_over()
    if any(isinstance(plan, AnchorEpochPlan) for plan in shown):
        anchors.take_over()
    now = [plan for plan in reopening.plans() if log_name(plan) in names]
    if [_essence(plan) for plan in now] != [_essence(plan) for plan in shown]:
        raise StoppedError("the logs have changed since they were examined: run the command again")
    for plan in now:
        if isinstance(plan, PartitionCountPlan):
            add_partitions(logs.cluster, plan.smaller, plan.wanted)
            continue
        event = epoch_opened(logs.deployment, _opened(plan), person=person, reason=reason)
        record = (event.topic, EventEncoder().encode(event), event.key)
        if isinstance(plan, EpochPlan):
            partitions.open(plan, record, datetime.now(UTC))
        else:
            anchors.open(plan, record, datetime.now(UTC))


def select(plans: Sequence[Plan], wanted: Collection[str]) -> list[Plan]:
    """Return the plans for the named logs, or all of them without names.

    Raises:
        UsageError: a named log is not stopped.
        EpochRefusedError: a chosen log cannot continue as a new epoch.
    """
    if unknown := set(wanted) - {log_name(plan) for plan in plans}:
        raise UsageError(f"{', '.join(sorted(unknown))}: not stopped. `grantledger epoch show` lists the stopped logs")
    chosen = [plan for plan in plans if not wanted or log_name(plan) in wanted]
    for plan in chosen:
        if isinstance(plan, EpochPlan) and plan.topic == FINDINGS_TOPIC and plan.stop.rule == "sealed_topic_lost":
            raise EpochRefusedError(
                f"{log_name(plan)} registers the sources of the deployment, and no process continues without its first "
                f'entry: restore {sealed(plan.topic)} from a copy (docs/operations.md, "Losing the findings"). Name '
                "the other logs to open only them"
            )
    return chosen


def _essence(plan: Plan) -> object:
    """Return what a person has confirmed: other processes may write findings and offsets meanwhile."""
    if isinstance(plan, EpochPlan):
        return plan.genesis
    return (plan.origin, plan.old) if isinstance(plan, AnchorEpochPlan) else plan


def _opened(plan: EpochPlan | AnchorEpochPlan) -> OpenedEpoch:
    if isinstance(plan, AnchorEpochPlan):
        return OpenedEpoch(ANCHORS_TOPIC, 0, b"", 0, plan.old.origin, plan.old.size, plan.old.root, plan.origin)
    genesis, old = plan.genesis, plan.old
    return OpenedEpoch(
        plan.topic, plan.partition, genesis.topic_id, genesis.first_offset, old.origin, old.size, old.root,
        genesis.origin,
    )  # fmt: skip
