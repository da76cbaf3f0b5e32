"""The anchor: at a fixed interval, one entry over the latest checkpoint of every log.

One process per deployment: its fixed transactional id fences off any other. It verifies its own last committed record,
resumes from it, and calls the external targets only after the commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from ..base.errors import StoppedError
from ..base.health import HEALTH, TURN_SECONDS
from ..kafka.anchor_log import anchors_from, last_anchor
from ..kafka.errors import raised_for_people
from ..kafka.identity import identify_topics
from ..kafka.offsets import end_offsets
from ..kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ..kafka.transactional_writer import TransactionalWriter
from ..ledger.anchor import (
    Anchor,
    AnchorConflictError,
    AnchorError,
    AnchorGapError,
    AnchorTarget,
    AnchorTargetError,
    Receipt,
    anchor_log,
    anchor_origin,
    append_anchor,
    check_anchor,
    encode_anchor,
    encode_receipt,
)
from ..ledger.keys import Signer
from ..ledger.merkle import Frontier
from ..ledger.note import Checkpoint
from ..schemas.codec import EventEncoder
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, INPUT_TOPICS, RECEIPTS_TOPIC, SEALED_TOPICS, sealed
from . import metrics
from .anchor_state import lost_anchors
from .notices import ANCHORING, finding_opened
from .resume import contradicts

log = structlog.get_logger("grantledger.anchor")


class AnchoringStoppedError(StoppedError):
    """Another anchor would cover up a contradiction; a person must examine it."""


class Anchorer:
    """The anchoring process. ``run`` returns after ``stop``."""

    def __init__(
        self,
        logs: SealedLogs,
        signer: Signer,
        targets: Sequence[AnchorTarget],
        *,
        interval: float = 60.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._logs, self._cluster, self._deployment = logs, logs.cluster, logs.deployment
        self._signer, self._targets = signer, targets
        self._interval, self._now = interval, now
        self._origin, self._frontier = anchor_origin(logs.deployment), Frontier()
        self._stopped_targets: list[AnchorTarget] = []
        self._anchored: dict[str, Checkpoint] = {}
        """The heads in the last anchor, by origin without the epoch."""
        self._heads_at: dict[tuple[str, bytes, int], Checkpoint | None] = {}
        """The verified heads, by log, id and end of its sealed topic: one that did not grow is not read again."""
        self._stopped: dict[str, str] = {}
        """Why a log is not anchored, by origin without the epoch."""
        self._stop = threading.Event()
        self._writer = TransactionalWriter(
            logs.cluster, f"{logs.deployment}-anchor", signer=logs.signer, stopping=self._stop.is_set
        )

    def stop(self) -> None:
        """Ask ``run`` to write one more anchor and to return. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Anchor until stopped.

        Raises:
            AnchoringStoppedError: no anchor verifies, anchors are lost, or every log is stopped.
            KafkaUnavailableError: the brokers do not answer, or another anchor process took over.
        """
        with raised_for_people("anchoring cannot continue"):
            identify_topics(self._cluster, (ANCHORS_TOPIC, RECEIPTS_TOPIC))
            self._writer.init()
            self._resume()
            HEALTH.settle("start")
            due = time.monotonic()
            while not self._stop.is_set():
                HEALTH.turned(within=self._interval + TURN_SECONDS)
                if self.anchor_once() is None:  # no log has begun
                    HEALTH.waits("logs", "waits for the first sealed batch: no log has begun")
                    self._stop.wait(1.0)
                    continue
                HEALTH.settle("logs")
                due = max(due + self._interval, time.monotonic())
                self._stop.wait(due - time.monotonic())
            self.anchor_once()

    def _resume(self) -> None:
        try:
            last = last_anchor(self._logs)
        except SealedLogStoppedError as error:
            raise AnchoringStoppedError(str(error)) from error
        if lost := lost_anchors(self._logs, last, self._last_of_targets()):
            reason = f"{ANCHORS_TOPIC} lost anchors: {'; '.join(lost)}"
            self._report("anchors_lost", anchor_log(self._deployment), reason)
            raise AnchoringStoppedError(f"{reason}. Restore the topic, or see `grantledger epoch show`")
        if last is None:
            return
        self._origin, self._frontier = last.origin, Frontier.unpack(last.index + 1, last.frontier)
        self._anchored = last.heads()
        self._publish(last)  # the process may have died between the commit and the targets
        log.info("anchor_log_resumed", origin=last.origin, size=self._frontier.size)

    def _last_of_targets(self) -> dict[str, Anchor]:
        """Return the last anchor of each target that holds one."""
        found = {}
        for target in self._targets:
            try:
                last = target.last()
                if last is not None:
                    check_anchor(last, self._logs.keys.at(last.origin, last.index + 1))
                    found[target.name] = last
            except AnchorTargetError as error:
                log.error("anchor_target_unavailable", target=target.name, reason=str(error))
            except AnchorError as error:
                self._stop_target(target, f"its last anchor does not verify: {error}")
        return found

    def anchor_once(self) -> Anchor | None:
        """Write, commit and publish one anchor; None if no log has begun."""
        checkpoints = self._heads()
        if not checkpoints:
            return None
        time_ms = int(self._now().timestamp() * 1000)
        anchor, frontier = append_anchor(self._frontier, self._origin, time_ms, checkpoints, self._signer)
        self._write(ANCHORS_TOPIC, encode_anchor(anchor))
        self._frontier = frontier
        self._anchored = anchor.heads()
        metrics.ANCHORS.inc()
        metrics.LAST_ANCHOR.set_to_current_time()
        self._publish(anchor)
        return anchor

    def _heads(self) -> list[Checkpoint]:
        """Return the verified latest checkpoint of every log, never older than the one in the last anchor.

        A log that does not verify, or contradicts its last anchor, is stopped: the anchor repeats its last checkpoint,
        so that the contradiction stays visible. The others go on, and so does this one once it is restored.
        """
        heads = dict(self._anchored)
        stopped = dict.fromkeys(heads, "its partition does not exist any more")
        stopped.pop(anchor_log(self._deployment), None)  # the head of the anchor log's previous epoch
        topics = identify_topics(self._cluster, (*INPUT_TOPICS, *SEALED_TOPICS))
        logs = [(topic, partition) for topic in INPUT_TOPICS for partition in range(topics[topic].partitions)]
        ends = end_offsets(self._cluster, [(sealed(topic), partition) for topic, partition in logs])
        read: dict[tuple[str, bytes, int], Checkpoint | None] = {}
        for topic, partition in logs:
            log_name = f"{self._deployment}/{topic}/{partition}"
            stopped.pop(log_name, None)
            at = (log_name, topics[sealed(topic)].topic_id, ends[sealed(topic), partition])
            try:
                read[at] = self._heads_at[at] if at in self._heads_at else self._head(log_name, topic, partition)
            except SealedLogStoppedError as error:
                stopped[log_name] = str(error)
                continue
            if (head := read[at]) is not None:
                heads[log_name] = head
        self._heads_at = read
        for log_name in stopped.keys() - self._stopped.keys():
            log.error("log_not_anchored", log=log_name, reason=stopped[log_name])
            self._report("anchoring_stopped", log_name, stopped[log_name])
        HEALTH.settle(*self._stopped)
        for log_name in stopped:
            HEALTH.waits(log_name, f"anchoring of {log_name} is stopped, see docs/runbooks/anchoring_stopped.md")
        self._stopped = stopped
        if stopped and stopped.keys() >= heads.keys() - {anchor_log(self._deployment)}:
            raise AnchoringStoppedError(f"every log is stopped; the first: {next(iter(stopped.values()))}")
        return list(heads.values())

    def _head(self, log_name: str, topic: str, partition: int) -> Checkpoint | None:
        """Return the verified head of a log, which does not contradict the last anchor; None if it has not begun."""
        last, anchored = self._logs.tail(topic, partition), self._anchored.get(log_name)
        head = last.head.checkpoint() if last is not None else None
        if anchored is not None and (head is None or contradicts(anchored, head)):
            found = "none" if head is None else f"{head.size} entries of {head.origin}, root {head.root.hex()}"
            raise SealedLogStoppedError(
                f"{anchored.origin} was anchored with {anchored.size} entries, root {anchored.root.hex()}, and now has "
                f"{found}"
            )
        return head

    def _report(self, rule: str, key: str, reason: str) -> None:
        """Publish a finding about a log or a target."""
        at = self._now()
        finding = finding_opened(
            self._deployment, ANCHORING, rule=rule, key=key, evidence={"reason": reason}, at=at, identity=at.isoformat()
        )
        self._write(FINDINGS_TOPIC, EventEncoder().encode(finding), finding.key)

    def _publish(self, anchor: Anchor) -> None:
        """Send an anchor to every target. One that is unavailable gets it with the next anchor."""
        for target in self._targets:
            if target in self._stopped_targets:
                continue
            try:
                receipt, problem = self._publish_missing(target, anchor), ""
                HEALTH.settle(f"target {target.name}")
            except AnchorConflictError as error:
                receipt, problem = b"", str(error)
                self._stop_target(target, problem)
            except AnchorTargetError as error:
                receipt, problem = b"", str(error)
                log.error("anchor_target_failed", target=target.name, index=anchor.index, reason=problem)
                HEALTH.waits(f"target {target.name}", f"waits for the anchor target {target.name}: {problem}")
            if problem:
                metrics.ANCHOR_FAILURES.labels(target.name).inc()
            answer = Receipt(anchor.origin, anchor.index, target.name, self._now(), receipt, problem)
            self._write(RECEIPTS_TOPIC, encode_receipt(answer))

    def _publish_missing(self, target: AnchorTarget, anchor: Anchor) -> bytes:
        """Publish an anchor, after the ones before it that the target did not get."""
        try:
            return target.publish(anchor)
        except AnchorGapError as gap:
            for earlier in anchors_from(self._logs, anchor.origin, gap.index):
                receipt = target.publish(earlier)
                if earlier.index == anchor.index:
                    return receipt
            raise

    def _stop_target(self, target: AnchorTarget, reason: str) -> None:
        """Publish nothing more to a target: it holds another history than the anchor log."""
        self._stopped_targets.append(target)
        log.error("anchor_target_stopped", target=target.name, reason=reason)
        HEALTH.waits(
            f"target {target.name}",
            f"the anchor target {target.name} is stopped, see docs/runbooks/anchor_target_stopped.md",
        )
        self._report("anchor_target_stopped", f"{self._deployment}/{target.name}", reason)

    def _write(self, topic: str, value: bytes, key: str | None = None) -> None:
        self._writer.begin()
        self._writer.produce(topic, value, key or self._deployment, 0)
        self._writer.commit()
