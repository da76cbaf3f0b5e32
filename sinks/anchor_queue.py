"""The anchors that the store has read and not yet stored, and whether one extends the last stored anchor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog
from clickhouse_connect.driver.client import Client
from confluent_kafka import Message

from ..kafka.anchor_log import anchor_problem, open_anchor
from ..kafka.offsets import Partition
from ..kafka.records import read_backward
from ..kafka.sealed_log import SealedLogs
from ..ledger.anchor import Anchor, AnchorDiscontinuityError, AnchorError, anchor_log, check_extends, decode_receipt
from ..ledger.entry import epoch_of
from ..ledger.note import Checkpoint
from ..schemas.topics import ANCHORS_TOPIC, RECEIPTS_TOPIC
from . import evidence, metrics
from .clickhouse import asking

log = structlog.get_logger("grantledger.store")


class AnchorQueue:
    """An anchor waits here until every entry that it covers is stored, so that no table is ever ahead of another."""

    def __init__(self, logs: SealedLogs) -> None:
        self._logs, self._log = logs, anchor_log(logs.deployment)
        self._waiting: list[tuple[Anchor, Message]] = []
        self._stopped = False

    def take(self, message: Message) -> None:
        """Add an anchor that the log key signed. Other records are reported and skipped."""
        if self._stopped:
            return
        try:
            self._waiting.append((open_anchor(self._logs, message), message))
        except AnchorError as error:
            self._logs.on_problem(anchor_problem(message, error))

    def clear(self) -> None:
        """Forget the anchors: they are read again."""
        self._waiting.clear()

    def next(self, is_stored: Callable[[Checkpoint], bool]) -> tuple[Anchor, Message] | None:
        """Return the next anchor if everything that it covers is stored."""
        if not self._waiting:
            return None
        # The head of the anchor log's own previous epoch has no entries here.
        covered = [head for name, head in self._waiting[0][0].heads().items() if name != self._log]
        return self._waiting[0] if all(map(is_stored, covered)) else None

    def insert(self, anchor: Anchor, client: Client) -> None:
        """Insert an anchor unless it is stored.

        Raises:
            AnchorDiscontinuityError: it does not extend the last stored anchor, or another one is stored in its place.
        """
        last = evidence.stored_anchor(asking(client), self._log)
        if last is None or (epoch_of(anchor.origin), anchor.index) > (epoch_of(last.origin), last.index):
            if last is not None or epoch_of(anchor.origin) == 0:  # a new store may begin with a later epoch
                check_extends(last, anchor)
            evidence.insert_anchor(client, anchor)
            metrics.STORED_ANCHORS.inc()
        elif evidence.stored_anchor_note(asking(client), anchor.origin, anchor.index) != anchor.note:
            raise AnchorDiscontinuityError(
                f"anchor {anchor.index} of {anchor.origin} is not the one that the store has: two histories"
            )

    def done(self) -> None:
        """The next anchor is stored."""
        self._waiting.pop(0)

    def stop(self, message: Message, error: AnchorError) -> None:
        """Store no more anchors until the next start: the anchor log contradicts the stored one. Other logs go on."""
        self._stopped = True
        self._waiting.clear()
        metrics.show_stop(ANCHORS_TOPIC, 0, stopped=True)
        log.error("anchors_stopped", offset=message.offset(), reason=str(error))
        self._logs.on_problem(replace(anchor_problem(message, error), rule="sealed_log_discontinuous"))


def store_receipt(message: Message, client: Client) -> None:
    """Store the receipt in a record. Receipts are not evidence: an invalid one is skipped."""
    try:
        evidence.insert_receipt(client, decode_receipt(message.value() or b""), message.offset() or 0)
    except AnchorError as error:
        log.error("receipt_invalid", offset=message.offset(), reason=str(error))


def continue_at(logs: SealedLogs, client: Client, where: Partition, begin: int, committed: int) -> int:
    """Return where to continue with the anchors or the receipts: at the committed offset, or at the beginning."""
    records = read_backward(logs.cluster, *where, before=committed) if committed > begin else iter(())
    for record in records:
        try:
            if where[0] == RECEIPTS_TOPIC:
                stored = evidence.has_receipt(client, decode_receipt(record.value() or b""))
            else:
                anchor = open_anchor(logs, record)
                ask = asking(client)
                stored = evidence.stored_anchor_note(ask, anchor.origin, anchor.index) == anchor.note
        except AnchorError:  # reported when it was read
            continue
        return committed if stored else begin
    return max(begin, committed)
