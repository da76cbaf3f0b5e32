"""Publishes what the watch found: findings, commands, faults, and jumps of this machine's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from ...schemas.codec import EventEncoder
from ..watch_policy import EffectivePolicy
from . import metrics
from .clock import WatchClock
from .core.commands import COMMANDS
from .core.judge import FindingChange, Identity
from .core.state import AccessState
from .faults import Faults
from .findings import FindingEvents, Outgoing, WatchFault, subject_of
from .kafka_findings import KafkaFindings
from .shard import Shard

Answer = TypeVar("Answer")
log = structlog.get_logger("grantledger.watch")


class Publication:
    """Publishes findings and commands. Publishing also confirms the time, because the brokers stamp the records."""

    def __init__(
        self, deployment: str, shard: Shard, policy: EffectivePolicy, findings: KafkaFindings, clock: WatchClock
    ) -> None:
        self._findings, self._clock = findings, clock
        self._events = FindingEvents(deployment, policy, EventEncoder(), shard)
        self.faults = Faults()
        self._unpublished: set[Identity] = set()
        """Findings that could not be published; neither are their resolutions."""
        self._thread = ThreadPoolExecutor(1, "watch-publish")
        """One thread, because transactions must not overlap."""

    async def changes(self, changes: list[FindingChange], state: AccessState, remark: Mapping[str, object]) -> None:
        """Publish changes. ``remark`` adds to the evidence of what opens."""
        records: list[Outgoing] = []
        for change in changes:
            rule, opened = change.finding.rule, change.kind == "opened"
            if not opened and change.identity in self._unpublished:
                self._unpublished.discard(change.identity)
                continue
            try:
                records += self._events.of_change(change, state, remark if opened else {})
            except Exception as error:  # one finding must not keep the others back
                self._unpublished.add(change.identity)
                self.faults.add(WatchFault(" ".join(subject_of(change)), error))
                continue
            if rule in COMMANDS:
                metrics.COMMANDS.inc()
            else:
                (metrics.FINDINGS if opened else metrics.RESOLVED).labels(rule).inc()
            log.info("finding", change=change.kind, rule=rule, key=change.finding.key)
        await self._publish(records)

    async def jumps(self) -> None:
        """Publish the jumps of the clock since the last call."""
        jumps, self._clock.jumps = self._clock.jumps, []
        for jump in jumps:
            metrics.JUMPS.labels(jump.kind).inc()
            log.warning("clock_jumped", kind=jump.kind, seconds=jump.seconds)
            if jump.kind == "step":
                # Publishing also confirms the time: the brokers stamp the records.
                await self._publish([self._events.of_clock_jump("opened", jump.at, jump.seconds)])
                await self._publish([self._events.of_clock_jump("resolved", jump.at, jump.seconds)])

    async def new_faults(self, now: int) -> None:
        """Publish the faults that have no finding yet."""
        new = self.faults.take()
        await self._publish([self._events.of_faults(identity, now, found) for identity, found in new.items()])

    async def _publish(self, records: list[Outgoing]) -> None:
        if not records:
            return
        asked = self._clock.boot()
        stamp = await self.in_thread(lambda: self._findings.publish(records))
        if stamp is not None:
            self._clock.confirm(stamp, asked)

    async def in_thread(self, call: Callable[[], Answer]) -> Answer:
        """Return the result of a call that blocks, made in the one thread that may publish."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
