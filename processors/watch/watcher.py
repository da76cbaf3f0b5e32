"""The watch at work, between Faust, which delivers sealed batches, and Kafka, where findings and snapshots go.

One process watches; the others stand by. A start restores the newest snapshot, reads the sealed log from its position,
reads back the findings on record, and publishes only what is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import structlog
from confluent_kafka import Message

from ...base.health import HEALTH
from ...kafka.sealed_log import SealedLogStoppedError, VerifiedBatch
from ...ledger.entry import split_origin
from ...schemas.catalog import SchemaCatalog
from ...schemas.rules import InvalidEventError
from ..access import DAY, NEVER, SECOND
from ..watch_policy import WatchPolicy
from . import metrics
from .clock import WatchClock
from .core.entities import Entity
from .core.facts import Fact
from .core.judge import Judge
from .daemon_call import call_in_daemon
from .decoding import Rows, decode_batch, facts_from, rows_of
from .faults import MissingEntriesError
from .findings import WatchFault
from .kafka_findings import KafkaFindings
from .kafka_snapshots import KafkaSnapshots
from .lag_gate import LagGate, Permission
from .publication import Publication
from .sealed_input import SealedInput
from .shard import ONLY_SHARD, Shard
from .snapshot import PART_ROWS, FactArchive, LogPosition, Snapshot

log = structlog.get_logger("grantledger.watch")

SLICE = 500
"""Facts or judgements after which other tasks may run: the timer must not wait for a large batch."""
ASK_EVERY = SECOND
"""Microseconds after which the end of the log is read although nothing is due, so that our lag is known."""
DECISIONS_EVERY = 5 * SECOND
"""Microseconds between two looks at what people have decided."""
LATE_AFTER = 10 * SECOND
"""Microseconds of waiting after which the watch is not ready."""
EMPTY_AFTER = SECOND
"""Microseconds of waiting after which the watch checks whether there is anything to wait for."""


class Watcher:
    """Applies sealed batches, and checks at an interval whether something is due.

    Args:
        lag_bound: microseconds of lag after which it judges all the same.
        snapshot_every: microseconds between two snapshots.
        keep_days: how many days entities stay after they ended.
    """

    def __init__(
        self,
        policy: WatchPolicy,
        deployment: str,
        findings: KafkaFindings,
        snapshots: KafkaSnapshots,
        catalog: SchemaCatalog,
        *,
        lag_bound: int,
        snapshot_every: int,
        keep_days: int,
        clock: WatchClock,
        shard: Shard = ONLY_SHARD,
    ) -> None:
        self._findings, self._snapshots, self._catalog = findings, snapshots, catalog
        self._clock, self._boot = clock, clock.boot
        self._snapshot_every, self._keep_days = snapshot_every, keep_days
        self.gate = LagGate(lag_bound)
        # A source that is silent here may report about tenants of other shards: the sweep sees them all.
        self.judge = Judge(policy, silences=shard.count == 1)
        self._publication = Publication(deployment, shard, self.judge.policy, findings, clock)
        self._faults, self._blocking = self._publication.faults, self._publication.in_thread
        self.judged_until = 0.0
        """Time up to which every grant has been judged, in seconds since 1970; 0 before the first judgement."""
        self._position = LogPosition()
        self._input: SealedInput | None = None
        self._topic_id: bytes | None = None
        """Kafka's id of the topic that the current epoch covers."""
        self._recreated = False
        """Whether ``access.lifecycle`` is now another topic than that."""
        self._snapshot: Snapshot | None = None
        """The snapshot to restore, until that is done."""
        self._naming = policy.naming
        self._archive = FactArchive(Snapshot(), policy.names)
        self._restored = asyncio.Event()
        self._snapshot_at = clock.boot()
        self._forgot_day = -1
        self.maintenance: asyncio.Task[None] | None = None
        """Forgets ended entities and writes a snapshot, in the background."""
        self._applying = asyncio.Lock()
        """While a batch is applied, facts, sources and position do not fit together: no snapshot is made of them."""
        self._failure: Exception | None = None
        """Why this process must end: something was not published."""
        self._asked = -NEVER
        self._decided = -NEVER
        self.active = False

    async def take_over(self) -> None:
        """Begin to watch: from now on no other process can publish."""
        HEALTH.waits("judging", "takes over: reads its snapshot and the findings on record")
        known = await self._blocking(self._findings.take_over)
        self.judge.restore(known)
        asked = self._boot()
        self._clock.start_from(await self._blocking(self._findings.time), asked)
        self._snapshot = await self._blocking(lambda: Snapshot.load(self._snapshots, self._findings))
        self._position = self._snapshot.position
        verifier = await self._blocking(lambda: self._findings.batch_verifier(self.position))
        self._topic_id = verifier.head.genesis.topic_id if verifier.head is not None else None
        self._input = SealedInput(verifier, self.position, self._findings.sealed_records)
        self._faults.restore(known.findings)
        self.resume()
        log.info("watching", findings=len(known.findings), open=sum(known.findings.values()))

    @property
    def position(self) -> int:
        """Offset in the sealed topic of the next record to read."""
        return self._position.sealed_offset

    def stand_by(self) -> None:
        """Publish nothing until ``resume``: another process may be watching."""
        self.active = False
        metrics.ACTIVE.set(0)

    def resume(self) -> None:
        """Watch again. If another process has watched meanwhile, the next publication fails."""
        self.active = True
        metrics.ACTIVE.set(1)

    async def restore(self) -> None:
        """Restore the snapshot. Nothing is applied or judged before."""
        snapshot, self._snapshot = self._snapshot or Snapshot(), None
        self._archive = FactArchive(snapshot, self._naming.installations)
        await self._restore_state(snapshot.position.size, snapshot.sources)
        self.gate.advance(snapshot.position.next_offset)
        metrics.GRANTS.set(len(self.judge.state.grants))
        self._restored.set()
        log.info("restored", entries=snapshot.position.size, grants=len(self.judge.state.grants))

    async def _restore_state(self, size: int, sources: Iterable[dict[str, Any]]) -> None:
        for table in self._archive.tables():
            HEALTH.progressed()
            await self._add_all(rows_of(table), self.judge.state.restore)
        self.judge.state.restore_sources(size, sources)

    async def take(self, record: Message) -> None:
        """Verify and apply a record of the sealed topic, after the unread ones before it."""
        await self._restored.wait()
        if (sealed_input := self._input) is None:
            raise RuntimeError("take over first")
        verified = sealed_input.accept(record)
        try:
            while (found := await asyncio.to_thread(next, verified, None)) is not None:
                await self._apply(found)
        except Exception as error:
            self._failure = error

    async def _apply(self, found: VerifiedBatch) -> None:
        """Apply a batch. An entry that is not applied becomes a finding."""
        HEALTH.progressed()
        batch, at = found.batch, self._position
        self._topic_id = batch.genesis.topic_id
        epoch = split_origin(batch.origin)[1]
        if epoch > at.epoch:  # its entries and perhaps its offsets begin at 0 again
            at = self._position = LogPosition(at.size, 0, at.sealed_offset, epoch, at.size)
            self.gate.restart(batch.genesis.first_offset)
        if batch.size <= at.entry:
            return
        try:
            keys = self._findings.source_keys
            decoded = await asyncio.to_thread(decode_batch, batch, self._catalog, at.before, keys)
            if batch.first_index > at.entry:
                missing = at.name(f"entries {at.entry} to {batch.first_index - 1}")
                self._faults.add(WatchFault(missing, MissingEntriesError("no readable sealed record contains them")))
            for one in decoded.invalid:
                fault = InvalidEventError(one.field, "forbidden by the schema's rules")
                self._faults.add(WatchFault(at.name(f"entry {one.entry}"), fault, one.source, one.append, one.tenant))
            async with self._applying:
                await self._add_all(decoded.rows, self.judge.add)
                await self._add_all(
                    decoded.unsigned,
                    lambda fact: self.judge.state.add_unsigned(fact, decoded.mistakes.get(fact.entry, "")),
                )
                self._position = replace(
                    at, size=at.before + batch.size, next_offset=batch.next_offset, sealed_offset=found.offset + 1
                )
                self._archive.add(decoded.table)
        except Exception as error:
            self._faults.add(WatchFault(f"sealed record {found.offset}", error))
            return
        self.gate.advance(batch.next_offset)
        metrics.GRANTS.set(len(self.judge.state.grants))
        if self._is_snapshot_due():
            await self._start_maintenance()

    async def _add_all(self, rows: Rows, add: Callable[[Fact], object]) -> None:
        for number, fact in enumerate(facts_from(rows, self._naming)):
            try:
                add(fact)
            except Exception as error:
                where = self._position.name(f"entry {fact.entry}")
                self._faults.add(WatchFault(where, error, fact.source, fact.append, fact.tenant))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def _is_snapshot_due(self) -> bool:
        working = self.maintenance is not None and not self.maintenance.done()
        if working or not self.active or self._failure is not None or not self._archive.new_rows:
            return False
        return self._boot() - self._snapshot_at >= self._snapshot_every or self._archive.is_many(self._archive.new_rows)

    async def _start_maintenance(self) -> None:
        """Forget ended entities, and write a snapshot, both in the background.

        Until the log was read to its end, the past is judged by the time of the log and forgotten before more of it is
        applied, so that it does not fill the memory.
        """
        day, past = self._archive.latest // DAY, not self.gate.live
        # While the past is read, days pass quickly: many facts must be new as well.
        forget = self._forgot_day < day and (
            self._archive.is_many(self._archive.unpruned_rows) if past else self.judge.judged_until > -NEVER
        )
        if forget:
            self._forgot_day = day
        if forget and past:
            await self._judge(Permission(self._archive.latest, 0), past=True)
            await self._forget()
        self.maintenance = asyncio.create_task(self._maintain(forget=forget and not past))

    async def _maintain(self, *, forget: bool) -> None:
        try:
            if forget:
                await self._forget()
            async with self._applying:
                while self._faults:  # a skipped record is not read again: the finding comes before the snapshot
                    await self._publication.new_faults(self._clock.now())
                self._snapshot_at = self._boot()
                snapshot = self._archive.snapshot(self._position, self.judge.state)
            await call_in_daemon(lambda: snapshot.store(self._snapshots))
        except Exception as error:  # Faust passes over errors of tasks and agents: the timer raises it
            self._failure = error

    async def store_last_snapshot(self) -> None:
        """Write a snapshot at a clean stop, so that the next start need not read the same entries again.

        Not while standing by, and not after a failure: then the next start reads them again, which is as correct. If
        another process has taken over, Kafka rejects the snapshot.
        """
        if self.maintenance is not None:
            await asyncio.wait((self.maintenance,))
        if self.active and self._failure is None and self._restored.is_set() and self._archive.new_rows:
            await self._maintain(forget=False)
        if self._failure is not None:
            log.warning("last_snapshot_failed", reason=str(self._failure), action="the next start reads more")

    async def _forget(self) -> None:
        """Forget entities that ended more than ``keep_days`` ago, and drop their facts. Unjudged time is not over."""
        index, forgotten = self._position.size, set[Entity]()
        before = (min(self._archive.latest, self.judge.judged_until) // DAY - self._keep_days) * DAY
        for number, entity in enumerate(self.judge.forget(before)):
            if entity is not None:
                forgotten.add(entity)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        for _ in self._archive.prune(forgotten, index, self.judge.state):
            await asyncio.sleep(0)
        metrics.GRANTS.set(len(self.judge.state.grants))

    async def tick(self) -> None:
        """Check whether something is due, and judge it once every record that was in Kafka by then is applied.

        Any error ends the process.
        """
        if not self.active:
            return
        if self._failure is not None:
            raise self._failure
        if self._input is not None and self._input.stopped:
            raise SealedLogStoppedError(
                f"the sealed log of access.lifecycle does not continue after entry {self._position.entry - 1}: run "
                "`grantledger verify --from kafka`"
            )
        if not self._restored.is_set():
            await self.restore()
        try:
            await self._check()
        except Exception as error:
            self._failure = error
            raise

    async def _check(self) -> None:
        now, boot = self._clock.now(), self._boot()
        if boot - self._decided >= DECISIONS_EVERY:
            self._decided = boot
            await self._follow_decisions()
        await self._publication.jumps()
        await self._publication.new_faults(now)
        due = self.judge.next_time < now
        if self.gate.question is None and (due or boot - self._asked >= ASK_EVERY):
            self._asked = boot
            self.gate.ask(now, await self._blocking(self._log_end), boot)
        catching_up = not self.gate.live
        permission = self.gate.answer(boot)
        metrics.LAG.set(permission.lag if permission else self.gate.lag)
        metrics.UNCONFIRMED.set(due and (permission is None or permission.lag > 0))
        self._show_health(boot)
        if permission is not None:
            if catching_up and self._archive.new_rows >= PART_ROWS:  # the next start need not read them again
                self._snapshot_at = boot - self._snapshot_every
            if self._is_snapshot_due():
                await self._start_maintenance()
            await self._judge(permission)
        elif (question := self.gate.question) is not None and boot - question.asked >= EMPTY_AFTER:
            applied = self.gate.applied
            if not self._recreated and await self._blocking(lambda: self._findings.is_empty(applied, question.end)):
                self.gate.advance(question.end)

    def _show_health(self, boot: int) -> None:
        """Report that the watch judges, or what it waits for."""
        question = self.gate.question
        if not self.gate.live:
            HEALTH.waits("judging", f"reads the log of access.lifecycle: {self.gate.lag:,} records are not applied yet")
        elif question is not None and boot - question.asked >= LATE_AFTER:
            HEALTH.waits("judging", f"judges nothing: {self.gate.lag:,} records are not sealed, or not applied yet")
        else:
            HEALTH.settle("judging")

    def _log_end(self) -> int:
        """Return the end of ``access.lifecycle`` in the current epoch. A topic that no epoch covers adds nothing."""
        topic_id, end = self._findings.log_end()
        self._recreated = self._topic_id not in (None, topic_id)
        return self.gate.applied + end if self._recreated else end

    async def _judge(self, permission: Permission, *, past: bool = False) -> None:
        remark: dict[str, object] = {}
        if permission.lag:
            remark = {"unconfirmed": f"lag {permission.lag}: judged despite the lag, which lasts too long"}
            log.error("judged_despite_lag", lag=permission.lag)
        while True:
            changes = self.judge.judge(permission.moment, SLICE, past=past)
            for entity, error in self.judge.faults:
                self._faults.add(WatchFault(" ".join(entity), error))
            self.judge.faults.clear()
            await self._publication.changes(changes, self.judge.state, remark)
            if self.judge.next_time >= permission.moment:
                break
            await asyncio.sleep(0)
        self.judged_until = permission.moment / SECOND
        metrics.JUDGED_UNTIL.set(self.judged_until)

    async def _follow_decisions(self) -> None:
        """Apply what people have decided meanwhile: as a start does, from the facts if they accepted a content."""
        known = await self._blocking(self._findings.decisions)
        self.judge.close(known.findings)
        if known.accepted <= self.judge.state.events.accepted:
            return
        log.info("accepted", entries=sorted(known.accepted))
        if self.maintenance is not None and not self.maintenance.done():
            await asyncio.wait((self.maintenance,))
        async with self._applying:
            sources = self.judge.forget_all(known.accepted)
            await self._restore_state(self._position.size, sources)
