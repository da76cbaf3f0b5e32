"""The enforcing process: reads commands from Kafka, records results, and rebuilds its history at the start.

One process per deployment: the fixed transactional id fences any other. Results and the position in the commands are
written in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import structlog
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message

from ..base.health import HEALTH
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
from ..schemas.own_sources import OPERATOR, WATCH
from ..schemas.topics import COMMANDS_TOPIC
from . import metrics
from .command_matcher import MOST_WAITING, CommandMatcher
from .command_rules import Admission, CommandHistory, Limits
from .context import Context
from .contract import InvalidCommandError, Plugin, RevokeCommand
from .dry_run import DryRun
from .enforcement_policy import EnforcementPolicy
from .event_writer import TransactionalEventWriter, answering, enforce_group, kafka_errors
from .events import COMMANDERS, Recorder, command_of
from .history_reader import HistoryReader
from .lifecycle_reader import LifecycleReader
from .revoker import Revoker

log = structlog.get_logger("grantledger.enforce")

LONGEST_WAIT = 0.2
"""Seconds of a poll, and so the longest delay of a stop."""
STEP_SECONDS = 1800.0
"""Limit of one step: a target may take ten minutes to answer, and is asked again after that."""
LAST_LOOK = 10.0
"""Seconds to wait for the end of the topic before exiting. It appears half a second after the last record."""
SHORT_WAIT = 0.05
"""Seconds of a poll while commands wait until their requests are sealed."""
MANY = 99
"""Most commands per poll, besides the first."""
NOT_REQUESTED = "the sealed log of access.findings has no such revoke.requested: the command is forged"
LARGEST_COMMAND = 64 << 10
"""Bytes. The events about a command repeat it, and must fit into a record too."""


class CommandHandler(Protocol):
    """Carries out commands, or only reports them."""

    def expect(self, offset: int) -> None:
        """Commit no position beyond a record until it is taken or refused."""

    def refuse(self, reason: str, source: str, offset: int) -> None:
        """Skip an invalid command that was sent in the name of a source."""

    def take(self, command: RevokeCommand, offset: int, requested: datetime) -> Admission:
        """Accept a command that was requested at some time."""

    def look(self, command: RevokeCommand, offset: int, requested: datetime) -> None:
        """Accept a request to look whether the access exists."""


class Enforcer:
    """The enforcing process. ``run`` returns after ``stop``. Without ``carry_out`` it only answers commands."""

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
        self._sources = SourceKeysReader(logs)
        self._lifecycle = LifecycleReader(logs, self._sources, catalog, policy, now)
        self._stopping = False

    def stop(self) -> None:
        """Ask ``run`` to return after the current step. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Carry out commands until stopped, or log them in a dry run.

        Raises:
            SealedLogStoppedError: the sealed log of findings or of lifecycle events is discontinuous.
            KafkaUnavailableError: the brokers do not answer, or another enforcer has taken over.
        """
        with kafka_errors("the enforcer cannot continue"):
            HEALTH.waits("start", "reads the log of findings")
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
        with closing(HistoryReader(self._logs, self._catalog)) as findings:
            start, committed = self._seek(consumer)
            writer.consumer = consumer
            history = findings.history
            revoker = Revoker(self._context(history), writer, start)
            if 0 <= committed < start:
                log.error("commands_lost", before=start, offsets=start - committed)
                lost = f"{start - committed} offsets of {COMMANDS_TOPIC} below {start}"
                revoker.report_lost(f"{lost} expired before they were read")
            log.info(
                "enforcing", position=start, ended=len(history.ended), begun=len(history.attempts),
                breakers_open=[str(circuit) for circuit in history.open_since],
            )  # fmt: skip
            matcher, at_end = CommandMatcher(findings), False
            HEALTH.settle("start")
            while not self._stopping:
                HEALTH.turned(within=STEP_SECONDS)
                read, end = self._read(consumer, matcher, revoker, history, revoker.wait(LONGEST_WAIT))
                if end is not None:
                    revoker.reached(end)
                at_end = end is not None or (at_end and not read)
                if history.open_since:
                    findings.update()  # a person may close a breaker
                revoker.step()
                revoker.settle()
            if not at_end and not matcher:
                _commit_end(consumer, revoker)

    def _context(self, history: CommandHistory) -> Context:
        recorder = Recorder(self._deployment)
        return Context(recorder, self._policy, self._plugins, self._lifecycle, self._limits, history, self._now)

    def _dry_run(self, consumer: Consumer) -> None:
        """Read from the position of the group and commit nothing, so that carrying out later starts there too."""
        with closing(HistoryReader(self._logs, self._catalog)) as findings:
            history = findings.history
            metrics.BREAKER_OPEN.set(len(history.open_since))
            start, _committed = self._seek(consumer)
            log.info(
                "dry_run", position=start, breaker_open=bool(history.open_since),
                hint="nothing is carried out without --carry-out",
            )  # fmt: skip
            handler = DryRun(self._context(history), answering(self._logs))
            matcher = CommandMatcher(findings)
            HEALTH.settle("start")
            HEALTH.notes("dry run", "revokes nothing: --carry-out or enforce_carry_out is not given")
            while not self._stopping:
                HEALTH.turned(within=STEP_SECONDS)
                self._read(consumer, matcher, handler, history, LONGEST_WAIT)

    def _read(
        self,
        consumer: Consumer,
        matcher: CommandMatcher,
        handler: CommandHandler,
        history: CommandHistory,
        seconds: float,
    ) -> tuple[bool, int | None]:
        """Hand over the commands whose requests are sealed. Return whether any record was read, and the end if reached.

        Commands that nobody requested, and other invalid records, are refused.
        """
        messages, end = list[Message](), None
        if len(matcher) < MOST_WAITING:
            messages, end = _poll(consumer, min(seconds, SHORT_WAIT) if matcher else seconds)
        for message in messages:
            offset = message.offset() or 0
            handler.expect(offset)
            try:
                matcher.add(self._command(message), offset, message.value() or b"")
            except InvalidCommandError as error:
                handler.refuse(str(error), error.source, offset)
        for command, offset, requested in matcher.matched():
            if requested is None:
                name = OPERATOR if command.requested_by else WATCH
                handler.refuse(NOT_REQUESTED, f"{name}/{self._deployment}", offset)
            else:
                # By the watch policy that is on record before the request.
                self._lifecycle.rename(history.names)
                take = handler.look if command.looks_only else handler.take
                take(replace(command, key=history.key(command.key)), offset, requested)
        return bool(messages), end

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

    def _command(self, message: Message) -> RevokeCommand:
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
            source = f"{datum['source']['system']}/{datum['source']['instance']}"
        except (DecodeError, FramingError) as error:
            raise InvalidCommandError(f"{error.code}: {error}") from error
        except (KeyError, TypeError) as error:  # a foreign schema
            raise InvalidCommandError(f"is not an access event: {type(error).__name__} {error}") from error
        record = signed_record(COMMANDS_TOPIC, message)
        sources = self._sources.until(time_ms)
        if not any(sources.is_believed(record, datum, by=system) for system in COMMANDERS):
            raise InvalidCommandError(f"is signed by neither {' nor '.join(COMMANDERS)}", source)
        try:
            return command_of(datum)
        except InvalidCommandError as error:
            raise InvalidCommandError(str(error), source) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidCommandError(f"is not an access event: {type(error).__name__} {error}", source) from error


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
    for message in consumer.consume(1, seconds) + consumer.consume(MANY, 0.0):
        error = message.error()
        if error is None:
            found.append(message)
            end = None
        elif error.code() == KafkaError._PARTITION_EOF:
            end = message.offset()
        elif ends_reading(error):
            raise KafkaUnavailableError(f"reading {COMMANDS_TOPIC}: {error.str()} (kafka_bootstrap_servers)")
    return found, end
