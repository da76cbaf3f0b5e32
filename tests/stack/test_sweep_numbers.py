"""The numbers of senders by SQL: counters over both topics, per topic, restarts, and what the store must not count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from grantledger.processors.access import SECOND, Source
from grantledger.processors.sweep import gaps, numbered_events
from grantledger.processors.sweep.counters import Counters
from grantledger.processors.sweep.numbered_events import NumberedEvents, erased_until
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_access import ask_store
from grantledger.schemas import event as events
from grantledger.schemas.access_key import SourceName
from grantledger.schemas.instance_names import InstanceNames
from support.access_store import DEPLOYMENT, Story, fill
from support.cases import Cases
from support.sources import Registrar, key_of
from support.watch_world import SIGNER

RENAMED: dict[SourceName, str] = {("renamed", "old"): "new"}


class Senders(Story):
    """Events with numbers."""

    def number(self, system: str, lifecycle: Iterable[int] = (), activity: Iterable[int] = (), **more: Any) -> None:
        name, instance, minute = more.get("name"), more.get("instance", "eu-1"), more.get("minute", -30)
        for event_type, numbers in (("session.started", lifecycle), ("session.command", activity)):
            for number in numbers:
                native_id = f"{system}-{len(self.records)}"
                source = events.EventSource(system, instance, native_id, "record", seq=number, sender=name)
                fields: dict[str, Any] = {"session_id": "s", "source": source}
                if event_type == "session.command":
                    fields["action"] = events.Action(command="x")
                self.add(self.event(event_type, minute, native_id, **fields), minute)


def test_gaps_of_numbers(tmp_path: Path, monkeypatch: Any) -> None:
    registrar = Registrar(DEPLOYMENT)
    registrar.init("grantledger-watch")
    assert registrar.register("signs", "eu-1", [key_of(SIGNER)], 0, initial=True)
    story = Senders(signers={"signs": SIGNER})
    story.number("both", (1, 3, 4), (2, 5))
    story.number("gap", (1, 4), (2, 5))
    story.number("each", (1, 2, 3, 4), (1, 2, 4))
    story.number("restarted", (1, 3, 5, 1, 2), (2, 4, 3))
    story.number("processes", (5, 6, 7), name="a")
    story.number("processes", (100, 102), name="b")
    story.number("renamed", (1, 2, 4))
    story.number("renamed", (1, 2, 4), instance="old")
    story.number("huge", (-(1 << 63), (1 << 63) - 1))
    story.number("signs", (1, 2, 4))
    signers, story.signers = story.signers, {}
    story.number("signs", (3,))  # not believed
    story.signers = signers
    twice = story.records[0]
    story.records += [twice, replace(story.records[3], value=b"\xc3\x01nothing")]
    story.number("late", (1, 3), minute=-0.5)
    fill(tmp_path, story.records, cuts=(7, 3, 11), sources=registrar.keys, states=False)
    counters = Counters(lambda source: 45 * SECOND if source.system == "late" else 60 * SECOND)
    monkeypatch.setattr(numbered_events, "MOST_ENTRIES", 5)
    with ask_store(Settings(data_dir=tmp_path)) as ask:
        numbered = NumberedEvents(counters, InstanceNames(RENAMED))
        numbered.read(ask)
        found = {(*one.counter.sender, one.gap.first, one.gap.last, one.counter.signed) for one in counters.missing()}
        assert found == {
            ("gap", "eu-1", "", 3, 3, False), ("each", "eu-1", "", 3, 3, False),
            ("processes", "eu-1", "b", 101, 101, False), ("renamed", "eu-1", "", 3, 3, False),
            ("renamed", "old", "", 3, 3, False), ("huge", "eu-1", "", 1 - (1 << 63), (1 << 63) - 2, False),
            ("signs", "eu-1", "", 3, 3, True), ("late", "eu-1", "", 2, 2, False),
        }  # fmt: skip
        assert {str(one.counter.source) for one in counters.missing()} >= {"renamed/new", "renamed/eu-1"}
        opens = {one.counter.source.system: one.opens for one in counters.missing()}
        now = int(story.now.timestamp()) * SECOND
        assert (opens["gap"], opens["late"]) == (now - 29 * 60 * SECOND, now + 15 * SECOND)
        sizes = [counter.size for counter in counters]
        numbered.read(ask)
        assert [counter.size for counter in counters] == sizes, "nothing is read twice"
        assert erased_until(ask) == 0
        assert gaps.known_findings(ask, gaps.RULE) == {}


def test_30_a_counter_over_both_topics_is_no_gap(cases: Cases, tmp_path: Path) -> None:
    story = Story()
    for number, event in enumerate(cases.emitted("30", story.now - timedelta(minutes=20))):
        story.add(event, number - 20)
    assert len({record.topic for record in story.records}) == 2
    fill(tmp_path, story.records, states=False)
    counters = Counters(lambda _: 0)
    with ask_store(Settings(data_dir=tmp_path)) as ask:
        NumberedEvents(counters, InstanceNames()).read(ask)
    assert [one.source for one in counters] == [Source("seqtool", "mix")]
    assert list(counters.missing()) == []
