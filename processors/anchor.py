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
from ..kafka.errors import raised_for_people
from ..kafka.identity import identify_topics
from ..kafka.offsets import end_offsets, first_offset
from ..kafka.records import last_record
from ..kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ..kafka.transactional_writer import TransactionalWriter
from ..ledger.anchor import (
    Anchor,
    AnchorError,
    AnchorTarget,
    AnchorTargetError,
    Receipt,
    anchor_origin,
    append_anchor,
    check_anchor,
    decode_anchor,
    encode_anchor,
    encode_receipt,
)
from ..ledger.entry import split_origin
from ..ledger.keys import Signer
from ..ledger.merkle import Frontier
from ..ledger.note import Checkpoint
from ..schemas.codec import EventEncoder
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, INPUT_TOPICS, RECEIPTS_TOPIC, SEALED_TOPICS, sealed
from . import metrics
from .notices import ANCHOR, finding_opened
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
        self._frontier = Frontier()
        self._anchored: dict[str, Checkpoint] = {}
        """The heads in the last anchor, by origin without the epoch."""
        self._heads_at: dict[tuple[str, bytes, int], Checkpoint | None] = {}
        """The verified heads, by log, id and end of its sealed topic: one that did not grow is not read again."""
        self._stopped: dict[str, str] = {}
        """Why a log is not anchored, by origin without the epoch."""
        self._stop = threading.Event()
        self._writer = TransactionalWriter(logs.cluster, f"{logs.deployment}-anchor", stopping=self._stop.is_set)

    def stop(self) -> None:
        """Ask ``run`` to write one more anchor and to return. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Anchor until stopped.

        Raises:
            AnchoringStoppedError: the last anchor does not verify, or every log is stopped.
            KafkaUnavailableError: the brokers do not answer, or another anchor process took over.
        """
        with raised_for_people("anchoring cannot continue"):
            identify_topics(self._cluster, (ANCHORS_TOPIC, RECEIPTS_TOPIC))
            self._writer.init()
            self._resume()
            due = time.monotonic()
            while not self._stop.is_set():
                if self.anchor_once() is None:  # no log has begun
                    self._stop.wait(1.0)
                    continue
                due = max(due + self._interval, time.monotonic())
                self._stop.wait(due - time.monotonic())
            self.anchor_once()

    def _resume(self) -> None:
        last = last_record(self._cluster, ANCHORS_TOPIC, 0)
        if last is None:
            if first_offset(self._cluster, ANCHORS_TOPIC, 0) > 0:
                raise AnchoringStoppedError(f"{ANCHORS_TOPIC} is empty but has contained anchors: they are lost")
            return
        try:
            anchor = decode_anchor(last.value() or b"")
            if anchor.origin != anchor_origin(self._deployment):
                raise AnchorError(f"it belongs to {anchor.origin}")
            self._frontier = check_anchor(anchor, self._signer.public_key)
        except AnchorError as error:
            raise AnchoringStoppedError(f"the last anchor does not verify with this key: {error}") from error
        self._anchored = {split_origin(head.origin)[0]: head for head in anchor.checkpoints()}
        self._publish(anchor)  # the process may have died between the commit and the targets
        log.info("anchor_log_resumed", size=self._frontier.size)

    def anchor_once(self) -> Anchor | None:
        """Write, commit and publish one anchor; None if no log has begun."""
        checkpoints = self._heads()
        if not checkpoints:
            return None
        time_ms = int(self._now().timestamp() * 1000)
        anchor, frontier = append_anchor(self._frontier, self._deployment, time_ms, checkpoints, self._signer)
        self._write(ANCHORS_TOPIC, encode_anchor(anchor))
        self._frontier = frontier
        self._anchored = {split_origin(head.origin)[0]: head for head in checkpoints}
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
            self._report(log_name, stopped[log_name])
        self._stopped = stopped
        if stopped and stopped.keys() >= heads.keys():
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

    def _report(self, log_name: str, reason: str) -> None:
        """Publish the finding about a stopped log."""
        log.error("log_not_anchored", log=log_name, reason=reason)
        at = self._now()
        finding = finding_opened(
            self._deployment,
            ANCHOR,
            rule="anchoring_stopped",
            key=log_name,
            evidence={"reason": reason},
            at=at,
            identity=at.isoformat(),
        )
        self._write(FINDINGS_TOPIC, EventEncoder().encode(finding), finding.key)

    def _publish(self, anchor: Anchor) -> None:
        """Send an anchor to every target. One that fails gets the next anchor."""
        for target in self._targets:
            try:
                receipt, problem = target.publish(anchor), ""
            except AnchorTargetError as error:
                receipt, problem = b"", str(error)
                metrics.ANCHOR_FAILURES.labels(target.name).inc()
                log.error("anchor_target_failed", target=target.name, index=anchor.index, reason=problem)
            answer = Receipt(anchor.origin, anchor.index, target.name, self._now(), receipt, problem)
            self._write(RECEIPTS_TOPIC, encode_receipt(answer))

    def _write(self, topic: str, value: bytes, key: str | None = None) -> None:
        self._writer.begin()
        self._writer.produce(topic, value, key or self._deployment, 0)
        self._writer.commit()
