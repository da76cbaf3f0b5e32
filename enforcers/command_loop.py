"""The enforcing process: reads commands from Kafka, records results, and rebuilds its history at the start.

One process per deployment: the fixed transactional id fences any other. Results and the position in the commands are
written in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message

from ..kafka.errors import KafkaUnavailableError, ends_reading
from ..kafka.identity import identify_topics
from ..kafka.offsets import committed_offsets, end_offset, first_offset
from ..kafka.options import reader_options
from ..kafka.records import signed_record
from ..kafka.sealed_log import SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import DecodeError, decode
from ..schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from ..schemas.framing import FramingError
from ..schemas.topics import COMMANDS_TOPIC
from . import metrics
from .command_rules import Admission, admit
from .contract import InvalidCommandError, Key, Plugin, RevokeCommand
from .events import INVALID_RULE, LOST_RULE, Recorder, command_of
from .journal import TransactionalEventWriter, enforce_group, kafka_errors, read_history
from .lifecycle_reader import LifecycleReader
from .policy import EnforcementPolicy
from .revoker import EnforcingStoppedError, Limits, Revoker, stopped

log = structlog.get_logger("grantledger.enforce")

LONGEST_WAIT = 0.2
"""Seconds of a poll, and so the longest delay of a stop."""
LAST_LOOK = 10.0
"""Seconds to wait for the end of the topic before exiting. It appears half a second after the last record."""
COMMANDER = "grantledger-watch"
"""The source of commands."""
LARGEST_COMMAND = 64 << 10
"""Bytes. The events about a command repeat it, and must fit into a record too."""
LATEST_MS = 7_258_118_400_000
"""The year 2200. A later time was set by a sender and cannot be represented."""


class Enforcer:
    """The enforcing process. ``run`` returns after ``stop``. Without ``carry_out`` it only logs and counts commands."""

    def __init__(
        self,
        logs: SealedLogs,
        policy: EnforcementPolicy,
        plugins: Mapping[str, Plugin],
        limits: Limits,
        *,
        catalog: SchemaCatalog,
        carry_out: bool,
        now: Callable[[], datetime],
    ) -> None:
        self._logs, self._policy, self._plugins = logs, policy, plugins
        self._cluster, self._deployment = logs.cluster, logs.deployment
        self._limits, self._carry_out, self._now = limits, carry_out, now
        self._catalog = catalog
        self._recorder = Recorder(logs.deployment)
        self._sources = SourceKeysReader(logs)
        self._lifecycle = LifecycleReader(logs, self._sources, catalog, now)
        self._stopping = False

    def stop(self) -> None:
        """Ask ``run`` to return after the current step. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Carry out commands until stopped, or log them in a dry run.

        Raises:
            EnforcingStoppedError: the breaker is open, or opens.
            SealedLogStoppedError: the sealed log of findings or of lifecycle events is discontinuous.
            KafkaUnavailableError: the brokers do not answer, or another enforcer has taken over.
        """
        with kafka_errors("the enforcer cannot continue"):
            identify_topics(self._cluster, (COMMANDS_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC))
            options = reader_options(self._cluster, enforce_group(self._deployment))
            consumer = Consumer(options | {"enable.partition.eof": True})
            try:
                if self._carry_out:
                    self._run(consumer)
                else:
                    self._dry_run(consumer)
            finally:
                self._lifecycle.close()
                self._sources.close()
                consumer.close()

    def _run(self, consumer: Consumer) -> None:
        # First, because it fences other enforcers: the history that is read next is complete.
        writer = TransactionalEventWriter(self._logs, lambda: self._stopping)
        history = read_history(self._logs, self._catalog)
        metrics.BREAKER_OPEN.set(history.breaker_opened is not None)
        if history.breaker_opened is not None:
            raise EnforcingStoppedError(stopped(f"since {history.breaker_opened:%Y-%m-%d %H:%M:%S} UTC"))
        start, committed = self._seek(consumer)
        writer.consumer = consumer
        revoker = Revoker(
            writer,
            recorder=self._recorder,
            policy=self._policy,
            plugins=self._plugins,
            running=self._lifecycle.running,
            limits=self._limits,
            history=history,
            position=start,
            now=self._now,
        )
        if 0 <= committed < start:
            why = f"{start - committed} offsets of {COMMANDS_TOPIC} below {start} expired before they were read"
            log.error("commands_lost", before=start, offsets=start - committed)
            writer.write([self._recorder.offset_finding(LOST_RULE, start, self._now(), why)], start)
        log.info("enforcing", position=start, ended=len(history.ended), begun=len(history.attempts))
        at_end = False
        while not self._stopping:
            messages, end = _poll(consumer, revoker.wait(LONGEST_WAIT))
            for message in messages:
                self._take(revoker, message)
            if end is not None:
                revoker.reached(end)
            at_end = end is not None or (at_end and not messages)
            revoker.step()
            revoker.settle()
        if not at_end:
            _commit_end(consumer, revoker)

    def _take(self, revoker: Revoker, message: Message) -> None:
        offset = message.offset() or 0
        try:
            command, appended = self._command(message)
        except InvalidCommandError as error:
            log.error("command_invalid", offset=offset, reason=str(error))
            # The time of the record, so that the event is the same when it is read again.
            at = datetime.fromtimestamp(min(max(message.timestamp()[1], 0), LATEST_MS) / 1000, UTC)
            revoker.refuse(self._recorder.offset_finding(INVALID_RULE, offset, at, str(error)), offset)
        else:
            revoker.take(command, offset, appended)

    def _dry_run(self, consumer: Consumer) -> None:
        """Read from the position of the group and commit nothing, so that carrying out later starts there too."""
        history, known = read_history(self._logs, self._catalog), set[Key]()
        metrics.BREAKER_OPEN.set(history.breaker_opened is not None)
        start, _committed = self._seek(consumer)
        log.info(
            "dry_run", position=start, breaker_open=history.breaker_opened is not None,
            hint="nothing is carried out without --carry-out",
        )  # fmt: skip
        while not self._stopping:
            for message in _poll(consumer, LONGEST_WAIT)[0]:
                try:
                    command, appended = self._command(message)
                except InvalidCommandError as error:
                    metrics.COMMANDS.labels("invalid").inc()
                    log.error("command_invalid", offset=message.offset(), reason=str(error))
                    continue
                age = self._now() - appended
                admission = admit(history, known, command.key, age=age, max_age=self._limits.max_age)
                metrics.COMMANDS.labels(admission).inc()
                if admission is Admission.work:
                    known.add(command.key)
                    self._report(command, appended)
                else:
                    log.info("command", grant=command.key.grant_id, admission=admission, offset=message.offset())

    def _report(self, command: RevokeCommand, appended: datetime) -> None:
        target = self._policy.route(command)
        if target is None:
            log.warning("would_fail", grant=command.key.grant_id, reason="no route of the policy matches")
            return
        running = self._lifecycle.running()
        covering = running.covering(
            command, appended, self._now(), lambda one: self._policy.shared(command, target, one)
        )
        if covering is not None:
            log.warning("would_postpone", grant=command.key.grant_id, target=target, covered_by=covering.grant_id)
            return
        metrics.WOULD_REVOKE.labels(target).inc()
        log.warning("would_revoke", grant=command.key.grant_id, target=target, plugin=self._plugins[target].kind)

    def _seek(self, consumer: Consumer) -> tuple[int, int]:
        """Start reading at the committed offset, else at the first command. Return both offsets.

        A committed offset beyond the end means that the topic was recreated. It is ignored then, and the history keeps
        old commands from being carried out again.
        """
        first = first_offset(self._cluster, COMMANDS_TOPIC, 0)
        end = end_offset(self._cluster, COMMANDS_TOPIC, 0)
        partition = self._cluster.partition(COMMANDS_TOPIC, 0)
        committed = committed_offsets(self._cluster, consumer, [partition])[COMMANDS_TOPIC, 0]
        if committed > end:
            committed = -1
        start = max(first, committed)
        consumer.assign([self._cluster.partition(COMMANDS_TOPIC, 0, start)])
        return start, committed

    def _command(self, message: Message) -> tuple[RevokeCommand, datetime]:
        kind, time_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise InvalidCommandError(
                f"its timestamp was set by the sender: {COMMANDS_TOPIC} needs message.timestamp.type=LogAppendTime"
            )
        value = message.value() or b""
        if len(value) > LARGEST_COMMAND:
            raise InvalidCommandError(f"has {len(value)} bytes, more than {LARGEST_COMMAND}")
        try:
            datum = decode(value, self._catalog, time_ms)
        except (DecodeError, FramingError) as error:
            raise InvalidCommandError(f"{error.code}: {error}") from error
        record = signed_record(COMMANDS_TOPIC, message)
        if not self._sources.until(time_ms).is_believed(record, datum, by=COMMANDER):
            raise InvalidCommandError(f"is not signed by {COMMANDER}")
        try:
            return command_of(datum), datetime.fromtimestamp(time_ms / 1000, UTC)
        except (KeyError, TypeError, AttributeError) as error:  # a foreign schema
            raise InvalidCommandError(f"is not an access event: {type(error).__name__} {error}") from error


def _commit_end(consumer: Consumer, revoker: Revoker) -> None:
    """Commit past the marker after the last command, so that it never looks like an expired command."""
    until = time.monotonic() + LAST_LOOK
    while time.monotonic() < until:
        messages, end = _poll(consumer, LONGEST_WAIT)
        if messages:  # they are for the next start
            return
        if end is not None:
            revoker.reached(end)
            revoker.settle()
            return


def _poll(consumer: Consumer, seconds: float) -> tuple[list[Message], int | None]:
    """Return new records within so many seconds, and the end of the topic if they reach it."""
    found, end = [], None
    for message in consumer.consume(100, seconds) if seconds == 0 else consumer.consume(1, seconds):
        error = message.error()
        if error is None:
            found.append(message)
            end = None
        elif error.code() == KafkaError._PARTITION_EOF:
            end = message.offset()
        elif ends_reading(error):
            raise KafkaUnavailableError(f"reading {COMMANDS_TOPIC}: {error.str()} (kafka_bootstrap_servers)")
    return found, end
