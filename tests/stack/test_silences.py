"""Silent sources by SQL: nothing of them in any lifecycle shard, one finding for each silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from grantledger.ledger.source_keys import SourceKeys
from grantledger.processors.access import SECOND
from grantledger.processors.naming import Installation
from grantledger.processors.sweep.gaps import SourceChange
from grantledger.processors.sweep.silences import Silences
from grantledger.processors.watch_policy import EffectivePolicy, SourceLimits, WatchPolicy
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_access import ask_store
from support.access_store import DEPLOYMENT, Story, fill
from support.lives import policy_record

MINUTE = 60 * SECOND
TENANTS = {"acme": 0, "globex": 1}
POLICY = WatchPolicy(
    source=(SourceLimits(silent_after_seconds=600), SourceLimits(system="unlimited", silent_after_seconds=None)),
    installation=(Installation(system="renamed", instance="eu-1", other_names=("old",)),),
)


def two_shards() -> SourceKeys:
    keys = SourceKeys(DEPLOYMENT)
    keys.lifecycle_shards = 2
    return keys


def told(story: Story, system: str, tenant: str, minute: float, **fields: Any) -> None:
    story.give(f"{system}-{minute}", minute, 600, system=system, tenant=tenant, **fields)
    story.records[-1] = replace(story.records[-1], partition=TENANTS[tenant])


def test_a_source_is_silent_if_nothing_of_it_arrives_in_any_shard(tmp_path: Path) -> None:
    story = Story()
    for system in ("quiet", "renamed", "unlimited"):
        told(story, system, "acme", -40)
        told(story, system, "globex", -30)
    told(story, "elsewhere", "acme", -40)
    told(story, "elsewhere", "globex", -5)
    told(story, "history", "acme", -40)
    told(story, "history", "globex", -5, seen=-200)
    told(story, "renamed", "acme", -5)
    story.records += [replace(story.records[-1], value=b"\xc3\x01nothing of quiet")]
    now = int(story.now.timestamp()) * SECOND
    fill(tmp_path, story.records, sources=two_shards())
    with ask_store(Settings(data_dir=tmp_path)) as ask:
        silences = Silences(EffectivePolicy(POLICY))
        found = silences.judge(ask, now)
        assert {(one.kind, *one.identity) for one in found} == {
            ("opened", "quiet/eu-1", now - 20 * MINUTE), ("opened", "history/eu-1", now - 30 * MINUTE),
        }  # fmt: skip
        assert {one.evidence["last_event"] for one in found} == {now - 30 * MINUTE, now - 40 * MINUTE}
        assert silences.judge(ask, now) == [], "a finding opens once"
        later = silences.judge(ask, now + 6 * MINUTE)
        assert {one.identity[0] for one in later} == {"elsewhere/eu-1", "renamed/eu-1"}


def test_the_next_event_in_any_shard_ends_a_silence_that_is_on_record(tmp_path: Path) -> None:
    story = Story()
    now = int(story.now.timestamp()) * SECOND
    told(story, "back", "acme", -40)
    told(story, "back", "globex", -5)
    told(story, "silent", "acme", -40)
    for system in ("back", "silent"):
        story.find("source_silent", f"{system}/eu-1", -29, deadline=-30, system="grantledger-sweep")
    fill(tmp_path, story.records, sources=two_shards())
    with ask_store(Settings(data_dir=tmp_path)) as ask:
        silences = Silences(EffectivePolicy(POLICY))
        assert silences.judge(ask, now) == [SourceChange("resolved", ("back/eu-1", now - 30 * MINUTE), {})]
        assert silences.judge(ask, now) == []


def test_a_silence_that_is_over_is_found_if_it_began_under_the_policy_in_force(tmp_path: Path) -> None:
    story = Story()
    now = int(story.now.timestamp()) * SECOND
    for minute in (-80, -65, -40, -29, -2):  # of a limit of 10 minutes
        told(story, "paused", "acme", minute)
    told(story, "paused", "globex", -57)
    told(story, "paused", "globex", -20)
    for minute in range(-60, 0, 9):  # never silent, in both shards together
        told(story, "steady", "acme" if minute % 2 else "globex", minute)
    story.find("source_silent", "paused/eu-1", -29, deadline=-30, system="grantledger-sweep")
    told_policy = replace(policy_record(story, POLICY), time_ms=(now - 48 * MINUTE) // 1000)
    fill(tmp_path, [*story.records, told_policy], sources=two_shards())
    with ask_store(Settings(data_dir=tmp_path)) as ask:
        silences = Silences(EffectivePolicy(POLICY))
        found = silences.judge(ask, now)
        since_57, since_40, since_20 = (("paused/eu-1", now - minute * MINUTE) for minute in (47, 30, 10))
        assert found == [
            SourceChange("opened", since_57, {"last_event": now - 57 * MINUTE}),
            SourceChange("opened", since_20, {"last_event": now - 20 * MINUTE}),
            SourceChange("resolved", since_40, {}),
            SourceChange("resolved", since_57, {}),
            SourceChange("resolved", since_20, {}),
        ]
        silences.forget()  # they were not published
        assert silences.judge(ask, now) == found
        assert silences.judge(ask, now) == [], "each once"
        restarted = Silences(EffectivePolicy(POLICY)).judge(ask, now, erased_until=now - 46 * MINUTE)
        assert {one.identity for one in restarted} == {since_40, since_20}
        other = Silences(EffectivePolicy(POLICY.model_copy(update={"lookups_per_minute": 1.0}))).judge(ask, now)
        assert other == [SourceChange("resolved", since_40, {})], "that policy is not on record yet"
