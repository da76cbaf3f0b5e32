"""The pages that findings of the watch cause: through its events and the outbox of alerts, without Kafka and HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grantledger.processors.watch.core.judge import FindingChange, Judge
from grantledger.processors.watch.findings import FindingEvents
from grantledger.processors.watch_policy import EffectivePolicy, WatchPolicy
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder, decode
from grantledger.schemas.event import FINDINGS_TOPIC
from grantledger.sinks.alerts.channel import Envelope, Exchange
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.delivery import Deliveries
from grantledger.sinks.alerts.finding import finding_of
from grantledger.sinks.alerts.outbox import Outbox, OutboxPosition
from grantledger.webhooks.answer import Answer, SendResult
from support.simulation import Watched

DEPLOYMENT = "sim.example"
TOPIC = "ab" * 16
LATER = 120.0
"""After so many seconds every page has left that is due. Seconds."""


class Pager:
    """A webhook for critical findings. ``pages``: the data of every message about an opened finding."""

    def __init__(self, path: Path, **channel: Any) -> None:
        hook: dict[str, Any] = {"kind": "webhook", "url": "https://hook.example/", "secret": {"env": "PAGER"}}
        hook |= {"min_severity": "critical"} | channel
        [named] = build_channels(AlertConfig.model_validate({"channels": {"hook": hook}}))
        self.pages: list[dict[str, Any]] = []
        self._outbox, self._offset = Outbox(path, [named]), 0
        self._outbox.configure(0.0)
        self._outbox.release(OutboxPosition(TOPIC, 0), 0.0, 1.0)
        self._out = Deliveries(path, named.name, named.config.delivery(), lambda: 0.5)

    def take(self, value: bytes, now: float) -> None:
        """Receive an event of the watch."""
        self._offset += 1
        datum = decode(value, SchemaCatalog((event_schema(),)), int(now * 1000))
        found = finding_of(datum, DEPLOYMENT, f"findings/{self._offset}", int(now * 1_000_000))
        assert found is not None
        self._outbox.take(OutboxPosition(TOPIC, self._offset), [found], [], live=True, now=now)

    def send(self, now: float) -> None:
        """Deliver everything that is due."""
        while envelopes := self._out.envelopes(self._out.plan(now).send):
            self.pages += [data for data in map(_opened, envelopes) if data]
            numbers = tuple(one.number for one in envelopes)
            self._out.record(Exchange(numbers, Answer(SendResult.delivered, 200, "ok")), now)

    def close(self) -> None:
        """Close the outbox."""
        self._outbox.close()
        self._out.close()


def _opened(envelope: Envelope) -> dict[str, Any] | None:
    message = json.loads(envelope.text)
    data: dict[str, Any] = message["data"]
    return data if message["type"] == "finding.opened" else None


@dataclass
class Paged(Watched):
    """The findings of a watch, which also reach a pager."""

    policy: WatchPolicy = field(kw_only=True)
    pager: Pager = field(kw_only=True)
    until: int = field(kw_only=True)
    """Later changes cause no page: the tools stop then. Milliseconds since 1970."""

    def note(self, changes: Sequence[FindingChange]) -> None:
        """Record changes of the watch, and deliver what they cause."""
        super().note(list(changes))
        events = FindingEvents(DEPLOYMENT, EffectivePolicy(self.policy), EventEncoder())
        for change in changes:
            now = change.at / 1_000_000
            if now * 1000 > self.until:
                continue
            for one in events.of_change(change, self.judge.state, {}):
                if one.topic == FINDINGS_TOPIC and one.event.event_type.startswith("finding."):
                    self.pager.take(one.value, now)
            self.pager.send(now + LATER)

    @classmethod
    def by(cls, policy: WatchPolicy, pager: Pager, until: int, judge: Judge) -> Paged:
        """Return the record of a judge."""
        return cls({}, set(), judge, policy=policy, pager=pager, until=until)
