"""The sources at a glance: planted events with known answers, and sources that were added and never heard."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pytest import approx

from grantledger.cli.source_health import FIELDS
from grantledger.ledger.keys import LocalSigner
from grantledger.processors.access import SECOND
from grantledger.processors.naming import Installation
from grantledger.processors.sweep.gaps import SourceChange, source_event
from grantledger.processors.sweep.never_heard import RULE, NeverHeard
from grantledger.processors.watch.findings import config_event
from grantledger.processors.watch_policy import KNOWN_DELAYS, EffectivePolicy, SourceLimits, WatchPolicy
from grantledger.schemas.event import ACTIVITY_TOPIC, Event, EventSource, Mapping, Report, Subject
from support.access_store import DEPLOYMENT, Story, opened_elsewhere, stored
from support.command import invoke
from support.sources import Registrar, key_of, registered

DAY = 24 * 60
FORMATS = ("table", "json")
POLICY = WatchPolicy(
    source=(
        *KNOWN_DELAYS,
        SourceLimits(system="quiet", silent_after_seconds=600),
        SourceLimits(system="expected", instance="eu-1", silent_after_seconds=600),
        SourceLimits(system="anywhere", heard_within_seconds=60),
        SourceLimits(system="delayed", delivery_seconds=60),
        SourceLimits(system="many*", silent_after_seconds=600),
    ),
    installation=(Installation(system="tool", instance="eu-1", other_names=("old",)),),
)


class Sources:
    """Registered sources, and a story in which they sign."""

    def __init__(self) -> None:
        self.registrar, self.story = Registrar(DEPLOYMENT), Story()
        self.story.signers = self.registrar.init("grantledger-watch")

    def register(self, system: str, minutes: float, *, removed: bool = False, tenant: str | None = None) -> None:
        signer = self.story.signers.get(system) or LocalSigner.generate()
        keys = [] if removed else [key_of(signer)]
        time_ms = int(self.story.at(minutes).timestamp() * 1000)
        assert self.registrar.register(system, "eu-1", keys, time_ms, removed=removed, tenant=tenant)
        event = registered(DEPLOYMENT, system, "eu-1", keys, removed=removed, tenant=tenant)
        source = replace(event.source, native_id=f"{system}:{minutes}")
        self.story.add(replace(event, event_id="", source=source), minutes)
        self.story.signers = {**self.story.signers, system: signer}

    def follow(self, policy: WatchPolicy, minutes: float) -> None:
        self.story.add(config_event(DEPLOYMENT, policy, self.story.at(minutes)), minutes)

    def publish(self, rule: str, key: str, since: int, at: float) -> None:
        """Open a finding about a source."""
        event = source_event(DEPLOYMENT, rule, SourceChange("opened", (key, since), {}), 0, "warning")
        source = replace(event.source, system="grantledger-watch")  # which signs here
        self.story.add(replace(event, source=source, event_id=""), at)


def report(story: Story, result: str, count: int, reason: str | None = None, **fields: Any) -> Event:
    """Return a report of a way in about records of a source."""
    source = EventSource(fields.pop("system", "tool"), "eu-1", f"report-{len(story.records)}", "report")
    return replace(
        story.event("source.report", -5, source.native_id, subject=Subject("tool/eu-1", "system"), **fields),
        report=Report(result, count, reason), mapping=Mapping("tool", "3"), source=source, event_id="",
    )  # fmt: skip


def test_the_numbers_of_a_source_are_those_of_its_events(tmp_path: Path) -> None:
    sources = Sources()
    story, now = sources.story, sources.story.now
    sources.register("tool", -3 * DAY)
    sources.follow(POLICY, -3 * DAY)
    story.give("old", -2 * DAY, 60, seen=-2 * DAY - 600, system="tool")  # before the last 24 hours
    for second in range(1, 48):
        at = -100 + second
        story.add(
            story.event(
                "session.started", at - second / 60, f"s-{second}", session_id=f"s-{second}", system="tool"
            ), at,
        )  # fmt: skip
    by_other_name = story.event("session.started", -31, "s-48", session_id="s-48", system="tool")
    story.signers = {name: one for name, one in story.signers.items() if name != "tool"}
    story.add(replace(by_other_name, source=replace(by_other_name.source, instance="old"), event_id=""), -30)
    story.give("forged", -20, 60, system="tool")
    story.give("other-tenant", -10, 60, system="free", tenant="acme")
    for counted in (
        report(story, "mapped", 40, system="free", tenant="acme"),
        replace(report(story, "skipped", 2, "noise", system="free", tenant="acme"), ordinal=1, event_id=""),
        replace(report(story, "skipped", 5, "noise", system="free", tenant="acme"), ordinal=2, event_id=""),
        replace(report(story, "skipped", 1, "empty", system="free", tenant="acme"), ordinal=3, event_id=""),
        replace(
            report(story, "failed", 1, "time: missing", system="free", tenant="acme", raw=b'{"kind": "new"}'),
            ordinal=4, event_id="",
        ),
    ):  # fmt: skip
        story.add(counted, -4)
    story.add(counted, -3)  # sent again
    story.add(replace(story.event("session.started", -2, "bad", system="free", tenant="acme", session_id="s"),
                      tenant="acme"), -2, topic=ACTIVITY_TOPIC)  # fmt: skip
    for rule, since in (("sequence_gap", 0), ("sequence_gap", 3600 * SECOND), ("source_silent", 5)):
        sources.publish(rule, "free/eu-1", since, -1)
    story.give("own", -5, 60, system="grantledger-watch")
    with stored(tmp_path, story.records, sources=sources.registrar.keys) as ask:
        rows = {(row["tenant"], row["source_system"]): row for row in ask("SELECT * FROM source_health")}
        kept = ask("SELECT result, reason, adapter, adapter_version, record FROM unmapped_records")
    with opened_elsewhere(tmp_path):
        listed = {form: invoke("sources", "list", "-o", form, "--data", str(tmp_path)).stdout for form in FORMATS}
        tenant = invoke("sources", "list", "-q", "--tenant", "acme", "--source", "free", "--data", str(tmp_path))
    assert tenant.stdout == "free/eu-1\n"
    for cell in (
        "never heard for 3 d",
        "silent for 10 min",
        "24 s (1 min)",
        "7 noise, 1 empty",
        "1 are not",
        "quiet/*",
    ):
        assert cell in listed["table"], cell
    assert {(row["tenant"], row["source_system"]) for row in json.loads(listed["json"])} == rows.keys()
    assert tuple(json.loads(listed["json"])[0]) == FIELDS
    assert rows.keys() == {
        ("default", "tool"),
        ("acme", "free"),
        *(("", one) for one in ("quiet", "expected", "anywhere")),
    }
    tool = rows["default", "tool"]
    assert (tool["state"], tool["registered"], tool["expected"], tool["source_instance"]) == (
        "heard",
        True,
        True,
        "eu-1",
    )
    assert (tool["events"], tool["unsigned"], tool["rejected"], tool["signed"]) == (49, 1, 0, False)
    assert (tool["added_at"], tool["silent_since"]) == (now - timedelta(days=3), None)
    assert (tool["first_event_at"], tool["last_event_at"]) == (story.at(-2 * DAY - 600), story.at(-31))
    assert (tool["first_recorded_at"], tool["last_recorded_at"]) == (story.at(-2 * DAY), story.at(-30))
    assert tool["events_per_hour"] == 48 / 24
    assert tool["delay_p50_seconds"] == approx(24.5, abs=1) and tool["delay_p99_seconds"] == approx(60, abs=1)
    assert (tool["mapped"], tool["skipped"], tool["failed"], tool["skipped_by_reason"]) == (0, 0, 0, {})
    free = rows["acme", "free"]
    assert (free["state"], free["registered"], free["signed"], free["added_at"]) == ("silent", False, False, None)
    assert (free["silent_since"], free["open_gaps"]) == (story.at(-10), 2)
    assert (free["events"], free["rejected"], free["mapped"], free["skipped"], free["failed"]) == (1, 1, 40, 8, 1)
    assert free["skipped_by_reason"] == {"noise": 7, "empty": 1}
    assert kept == [
        {"result": "failed", "reason": "time: missing", "adapter": "tool", "adapter_version": "3",
         "record": '{"kind": "new"}'}
    ]  # fmt: skip
    quiet = rows["", "quiet"]
    assert (quiet["state"], quiet["source_instance"], quiet["events"], quiet["delay_p50_seconds"]) == (
        "never heard", "*", 0, None
    )  # fmt: skip
    assert quiet["added_at"] == quiet["silent_since"] == now - timedelta(days=3)


def test_a_source_that_was_added_and_never_heard_is_found(tmp_path: Path) -> None:
    sources = Sources()
    story = sources.story
    now = int(story.now.timestamp()) * SECOND
    sources.register("never", -2 * DAY, tenant="acme")
    sources.register("never", -DAY + 10, tenant="acme")  # it has a new key
    sources.register("new", -DAY + 10)
    sources.register("gone", -2 * DAY)
    sources.register("gone", -10, removed=True)
    sources.register("back", -9 * DAY)
    sources.register("back", -8 * DAY, removed=True)
    sources.register("back", -5)
    sources.register("heard", -2 * DAY)
    sources.register("unsigned", -2 * DAY)
    sources.register("unread", -2 * DAY)
    sources.register("quiet", -2 * DAY)
    sources.register("imported", -2 * DAY)
    story.give("old", -1, 60, seen=-200, system="imported")
    earlier = POLICY.model_copy(
        update={"source": (*POLICY.source, SourceLimits(system="left", silent_after_seconds=1))}
    )
    sources.follow(earlier, -3 * DAY)
    sources.follow(POLICY, -2)
    story.act("s", -1, "ls", system="heard")
    story.add(report(story, "skipped", 3, "noise", system="unread"), -1)
    story.signers = {name: one for name, one in story.signers.items() if name != "unsigned"}
    story.give("forged", -1, 60, system="unsigned")
    silent_for_a_day = ("never", "unsigned", "unread", "quiet", "expected", "imported")
    with stored(tmp_path, story.records, sources=sources.registrar.keys) as ask:
        listed = {row["source_system"]: row for row in ask("SELECT * FROM never_heard_sources")}
        assert listed.keys() == {*silent_for_a_day, "new", "back", "anywhere"}
        assert sorted(name for name, row in listed.items() if row["something_came"]) == [
            "imported",
            "unread",
            "unsigned",
        ]
        assert (listed["never"]["tenant"], listed["never"]["added_at"]) == ("acme", story.at(-2 * DAY))
        assert listed["back"]["added_at"] == story.at(-5)
        health = {row["source_system"]: row for row in ask("SELECT * FROM source_health")}
        assert {name: row["state"] for name, row in health.items()} == {
            **dict.fromkeys(listed, "never heard"),
            "heard": "heard",
        }
        assert (health["unread"]["skipped"], health["unsigned"]["unsigned"]) == (3, 1)

        rule = NeverHeard(EffectivePolicy(POLICY))
        found = rule.judge(ask, now)
        assert {(one.kind, one.identity[0]) for one in found} == {
            ("opened", "anywhere/*"), *(("opened", f"{name}/eu-1") for name in silent_for_a_day)
        }  # fmt: skip
        never = next(one for one in found if one.identity[0] == "never/eu-1")
        assert never.identity[1] == now - DAY * 60 * SECOND
        assert never.evidence == {"added": now - 2 * DAY * 60 * SECOND, "registered": True, "something_came": False}
        assert rule.judge(ask, now) == [], "a finding opens once"
        assert {one.identity[0] for one in rule.judge(ask, now + 11 * 60 * SECOND)} == {"new/eu-1"}
    for change in found:  # published
        sources.publish(RULE, *change.identity, 0)
    story.act("s", 1, "ls", system="unread")
    sources.register("never", 1, removed=True)
    sources.publish(RULE, "removed/eu-1", now, 0)
    story.add(report(story, "failed", 3, system="unexpected"), 1)
    with stored(tmp_path / "later", story.records, sources=sources.registrar.keys) as ask:
        [unexpected] = ask("SELECT state, failed FROM source_health WHERE source_system = 'unexpected'")
        assert unexpected == {"state": "no events", "failed": 3}
        resolved = NeverHeard(EffectivePolicy(POLICY)).judge(ask, now + 2 * 60 * SECOND)  # restarted
        assert {(one.kind, one.identity[0]) for one in resolved} == {
            ("resolved", one) for one in ("unread/eu-1", "never/eu-1", "removed/eu-1")
        }  # fmt: skip
