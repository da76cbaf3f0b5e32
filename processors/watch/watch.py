"""The watch at work, between what Faust brings and what the journal writes. It knows neither Faust's parts nor Kafka's.

One process watches; every other stands by. After a start, what was kept is taken back (:mod:`.keeper`), the sealed log
is read from there on, what was said before is read back, and only what is new is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog

from ...ledger.batch import decode
from ...schemas.catalog import SchemaCatalog
from ...schemas.event import FINDINGS_TOPIC
from ...schemas.rules import InvalidEventError
from . import metrics
from .clock import Clock
from .facts import Fact
from .gate import Gate, Verdict
from .keeper import Keeper, Shelf
from .life import NEVER
from .memory import Place
from .policy import SECOND, Policy
from .reading import Rows, facts_from, read
from .reports import FAULT, Reporter, Word, Writer, short
from .rules import REVOKE
from .state import Change, Identity, WatchState, about_of

Answer = TypeVar("Answer")
log = structlog.get_logger("grantledger.watch")

SLICE = 500
"""Facts or judgements after which others get their turn: the timer must not wait for a large batch."""
ASK_EVERY = SECOND
"""Microseconds after which the end of the log is asked for though nothing is due, so that our lag is known."""
EMPTY_AFTER = SECOND
"""Microseconds of waiting after which it is asked whether there is anything to wait for."""


class MissingEntriesError(LookupError):
    """The sealed log has a hole: what stood there is judged by nobody."""


class Words(Shelf, Protocol):
    """Where findings go and facts are kept, and what it takes to know that everything was heard. Any call may block."""

    def take_over(self) -> dict[Identity, bool]:
        """Return what was said before; from now on nobody else's word counts."""
        ...

    def time(self) -> int:
        """Return the brokers' time, in microseconds since 1970."""
        ...

    def write(self, words: list[Word]) -> int | None:
        """Write events, all or none; return the brokers' time in microseconds since 1970."""
        ...

    def end(self) -> int:
        """Return the offset after the last record of ``access.lifecycle``."""
        ...

    def is_empty(self, start: int, end: int) -> bool:
        """Whether a stretch of it holds nothing that will ever be sealed."""
        ...


class Watch:
    """Takes sealed batches in, and looks at a rhythm whether something is due.

    Args:
        bound: microseconds of lag after which it judges all the same.
        keep_every: microseconds between two times that what was heard is written away.
        keep_days: how many days what is over is kept.
        boot: microseconds since boot, suspension included.
    """

    def __init__(
        self,
        policy: Policy,
        deployment: str,
        words: Words,
        catalog: SchemaCatalog,
        *,
        bound: int,
        keep_every: int,
        keep_days: int,
        clock: Clock,
        boot: Callable[[], int],
    ) -> None:
        self._words, self._catalog, self._clock, self._boot = words, catalog, clock, boot
        self.gate = Gate(bound)
        self.state = WatchState(policy)
        self._reporter, self._writer = Reporter(deployment, self.state.judge_by), Writer()
        self._keeper = Keeper(words, self._blocking, every=keep_every, days=keep_days)
        self._place = Place()
        self._loaded = asyncio.Event()
        self._forgetting: asyncio.Task[None] | None = None
        self._lost: Exception | None = None
        """Why nothing can be kept any more."""
        self._asked = -NEVER
        self._faults: list[tuple[str, Exception]] = []
        self._fault_names: set[str] = set()
        self._unsaid: set[Identity] = set()
        """Findings that could not be put on record: their resolutions are not either."""
        self.active = False
        self._reading = ThreadPoolExecutor(1, "watch-read")
        self._writing = ThreadPoolExecutor(1, "watch-write")

    async def take_over(self) -> None:
        """Begin to watch: nobody else's word counts from now on."""
        known = await self._blocking(self._words.take_over)
        self.state.knows(known)
        asked = self._boot()
        self._clock.meet(await self._blocking(self._words.time), asked)
        self._place = await self._keeper.recall()
        self._fault_names.update(key for rule, key, _ in known if rule == FAULT)
        self.active = True
        metrics.ACTIVE.set(1)
        log.info("watching", findings=len(known), open=sum(known.values()))

    @property
    def position(self) -> int:
        """Offset in the sealed topic of the record to go on with."""
        return self._place.record

    def stand_by(self) -> None:
        """Say nothing until ``go_on``: another one may be watching."""
        self.active = False
        metrics.ACTIVE.set(0)

    def go_on(self) -> None:
        """Watch again. Had another one watched meanwhile, the next word of ours would be refused."""
        self.active = True
        metrics.ACTIVE.set(1)

    async def take(self, value: bytes, offset: int) -> None:
        """Apply one sealed batch. What cannot be read is put on record as a finding, never passed over in silence."""
        await self._loaded.wait()
        loop = asyncio.get_running_loop()
        try:
            batch = decode(value)
            if batch.size <= self._place.size:  # read again after a rebalance
                return
            table, rows, wrong = await loop.run_in_executor(self._reading, lambda: read(batch, self._catalog))
            if batch.first_index > self._place.size:
                missing = f"entries {self._place.size} to {batch.first_index - 1}"
                self._fault(missing, MissingEntriesError("no sealed record that can be read holds them"))
            for index, field in wrong.items():
                self._fault(f"entry {index}", InvalidEventError(field, "the rules of the schema forbid it"))
            await self._add_all(rows, self.state.add)
        except Exception as error:
            self._fault(f"sealed record {offset}", error)
            return
        self._place = Place(batch.size, batch.next_offset, offset + 1)
        self._keeper.take(table, self._boot())
        self.gate.take(batch.next_offset)
        metrics.GRANTS.set(len(self.state.grants))
        if self.active and self._keeper.is_due(self._boot()):
            await self._keep(table.column("append")[-1].as_py() if table.num_rows else 0)

    async def _add_all(self, rows: Rows, add: Callable[[Fact], None]) -> None:
        for number, fact in enumerate(facts_from(rows)):
            try:
                add(fact)
            except Exception as error:
                self._fault(f"entry {fact.index}", error)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def _keep(self, latest: int) -> None:
        """Write away what was taken; forget what is over, once it is judged.

        While the past is read it is judged by the time of the log, so that it need not be held whole until the end.

        Args:
            latest: when the last record was appended.
        """
        if self._lost is not None:  # something is missing in what is kept, or was not said
            return
        try:
            await self._report_faults(self._clock.now())  # what was passed over is not read again
            await self._keeper.write(self._place, self.state)
            if self._forgetting is not None and not self._forgetting.done():
                return
            if self.gate.live and self._keeper.is_time_to_forget(live=True):
                self._forgetting = asyncio.create_task(self._forget())
            elif self._keeper.is_time_to_forget(live=self.gate.live):
                await self._judge(Verdict(latest, 0), past=True)
                await self._forget()
        except Exception as error:  # what an agent raises is passed over: the timer says it
            self._lost = error
        except asyncio.CancelledError:
            self._lost = RuntimeError("cut off while it wrote away what it knows")
            raise

    async def _forget(self) -> None:
        try:
            await self._keeper.forget(self.state)
            metrics.GRANTS.set(len(self.state.grants))
        except Exception as error:
            self._lost = error

    async def load(self) -> None:
        """Take back what was kept; nothing is applied or judged before.

        Raises:
            ValueError, TypeError, KeyError: it cannot be read. It is thrown away: the next start reads the whole log.
        """
        try:
            async for rows in self._keeper.load(self.state):
                await self._add_all(rows, self.state.recall)
        except (ValueError, TypeError, KeyError):
            log.exception("memory_unreadable", action="it is thrown away: the next start reads the whole log")
            await self._keeper.discard()
            raise
        self.gate.take(self._place.next_offset)
        metrics.GRANTS.set(len(self.state.grants))
        self._loaded.set()
        log.info("recalled", entries=self._place.size, grants=len(self.state.grants))

    def _fault(self, where: str, error: Exception) -> None:
        where = short(where)
        log.error("fault", where=where, fault=type(error).__name__, exc_info=error)
        metrics.FAULTS.inc()
        self._faults.append((where, error))

    async def tick(self) -> None:
        """Look whether something is due, and judge it once everything is applied that was in Kafka by then.

        Raises:
            KafkaException, KafkaUnavailableError: what was found is not on record; start again.
            ValueError, TypeError, KeyError: what was kept cannot be read, and is thrown away; start again.
        """
        if not self.active:
            return
        if self._lost is not None:
            raise self._lost
        if not self._loaded.is_set():
            await self.load()
        try:
            await self._look()
        except Exception as error:
            self._lost = error
            raise

    async def _look(self) -> None:
        now, boot = self._clock.now(), self._boot()
        await self._report_jumps()
        await self._report_faults(now)
        due = self.state.next_look < now
        if self.gate.ticket is None and (due or boot - self._asked >= ASK_EVERY):
            self._asked = boot
            self.gate.ask(now, await self._blocking(self._words.end), boot)
        verdict = self.gate.answer(boot)
        metrics.LAG.set(verdict.lag if verdict else self.gate.lag)
        metrics.UNCONFIRMED.set(due and (verdict is None or verdict.lag > 0))
        if verdict is not None:
            await self._judge(verdict)
        elif (ticket := self.gate.ticket) is not None and self.gate.waited(boot) >= EMPTY_AFTER:
            applied = self.gate.applied
            if await self._blocking(lambda: self._words.is_empty(applied, ticket.end)):
                self.gate.take(ticket.end)

    async def _judge(self, verdict: Verdict, *, past: bool = False) -> None:
        remark: dict[str, object] = {}
        if verdict.lag:
            remark = {"unconfirmed": f"lag {verdict.lag}: judged without it, because it lasts too long"}
            log.error("judged_in_spite_of_lag", lag=verdict.lag)
        while True:
            changes = self.state.judge(verdict.moment, SLICE, past=past)
            for about, error in self.state.faults:
                self._fault(f"{about[0]} {about[1]}", error)
            self.state.faults.clear()
            await self._say(changes, remark)
            if self.state.next_look >= verdict.moment:
                break
            await asyncio.sleep(0)
        metrics.JUDGED_UNTIL.set(verdict.moment / SECOND)

    async def _say(self, changes: list[Change], remark: dict[str, object]) -> None:
        words: list[Word] = []
        for change in changes:
            rule, opened = change.finding.rule, change.what == "opened"
            identity: Identity = change.finding[:3]
            if not opened and identity in self._unsaid:
                self._unsaid.discard(identity)
                continue
            try:
                words += self._report(change, remark if opened else {})
            except Exception as error:  # what cannot be said of one thing must not keep the others back
                self._unsaid.add(identity)
                self._fault(" ".join(about_of(change.finding)), error)
                continue
            counter = (
                metrics.COMMANDS if rule == REVOKE else (metrics.FINDINGS if opened else metrics.RESOLVED).labels(rule)
            )
            counter.inc()
            log.info("found", what=change.what, rule=rule, key=change.finding.key)
        await self._write(words)

    def _report(self, change: Change, remark: dict[str, object]) -> list[Word]:
        grant = self.state.grants.get(change.finding.key)
        return [self._writer.word(*one) for one in self._reporter.report(change, grant, remark)]

    async def _report_jumps(self) -> None:
        jumps, self._clock.jumps = self._clock.jumps, []
        for jump in jumps:
            metrics.JUMPS.labels(jump.kind).inc()
            log.warning("clock_jumped", kind=jump.kind, seconds=jump.seconds)
            if jump.kind == "step":
                # Written first of all for the answer: the brokers' stamp says what time it is.
                for resolved in (False, True):
                    event = self._reporter.jumped(jump.at, jump.seconds, resolved=resolved)
                    await self._write([self._writer.word(FINDINGS_TOPIC, event)])

    async def _report_faults(self, now: int) -> None:
        faults, self._faults = self._faults, []
        new = {where: error for where, error in reversed(faults) if where not in self._fault_names}
        self._fault_names.update(new)
        events = [self._reporter.fault(where, now, error) for where, error in reversed(new.items())]
        await self._write([self._writer.word(FINDINGS_TOPIC, event) for event in events])

    async def _write(self, words: list[Word]) -> None:
        if not words:
            return
        asked = self._boot()
        stamp = await self._blocking(lambda: self._words.write(words))
        if stamp is not None:
            self._clock.hear(stamp, asked)

    async def _blocking(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._writing, call)
