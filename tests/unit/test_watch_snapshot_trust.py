"""Whoever can write to ``access.watch``, or send events, neither changes what the watch knows nor stops it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pytest

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.ledger.source_signature import SourceSigner
from grantledger.processors.access import OTHER_SOURCES
from grantledger.processors.watch import metrics, snapshot
from grantledger.processors.watch.core import source_histories
from grantledger.processors.watch.decoding import FACT_SCHEMA
from grantledger.processors.watch.findings import SYSTEM
from grantledger.processors.watch.kafka_findings import KafkaFindings
from grantledger.processors.watch.manifest_signature import (
    MAX_MANIFEST_BYTES,
    ManifestSignature,
    SnapshotUnusableError,
)
from grantledger.processors.watch.snapshot import (
    FactArchive,
    LogPosition,
    Snapshot,
    SnapshotPart,
    decode_part,
    encode_parts,
)
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.schemas.catalog import SchemaCatalog
from grantledger.schemas.event import EventSource
from grantledger.schemas.topics import MAX_SEALED_BYTES
from support.snapshot_memory import SIGNATURE, WATCH_KEY, EndlessSealedTopic, MemorySnapshots, WatchRecord
from support.sources import Registrar, key_of
from support.watch_world import Paper, World, given_until, grant, ids, overdue, removed

THIEF = LocalSigner.generate()


def content_of(record: WatchRecord) -> bytes:
    return SIGNATURE.verified(record.name.decode(), record.content or b"")


def restarted(world: World) -> World:
    """Return a watch that was started after this one and has read the rest of the sealed topic."""
    again = World(world.paper)
    again.head, again.records = world.head, world.records
    again.hears_again()
    return again


def forge(world: World, sign: Callable[[str, bytes], bytes], hide: str = "") -> None:
    """Append a copy of the newest snapshot under the next number; a grant may be missing from it."""
    newest = world.paper.manifest_records[0]
    manifest = json.loads(content_of(newest))
    number, parts = int(newest.name.split(b"/")[0].split(b"-")[1]) + 1, []
    for at, (location, rows, _) in enumerate(manifest["parts"]):
        part = SnapshotPart(rows, world.paper.parts[location])
        if at < manifest["facts"] and hide:
            kept = [row for row in decode_part(part.value).to_pylist() if row["grant_id"] != hide.encode()]
            [part] = encode_parts([pa.RecordBatch.from_pylist(kept, FACT_SCHEMA)])
        offset = world.paper.append(f"snapshot-{number}/{at}", part.value)
        parts.append((offset, part.rows, sha256(part.value).hexdigest()))
    key = f"snapshot-{number}/manifest/{len(parts)}/{newest.at}"
    world.paper.append(key, sign(key, json.dumps(manifest | {"parts": parts}).encode()))


SIGNED_WRONGLY: dict[str, Callable[[str, bytes], bytes]] = {
    "not": lambda _, content: content,
    "with zeros": lambda _, content: bytes(72) + content,
    "by another key": ManifestSignature("test", THIEF, set).sign,
    "for another deployment": ManifestSignature("other", WATCH_KEY, set).sign,
    "for another snapshot": lambda key, content: SIGNATURE.sign(key.replace("snapshot-", "snapshot-1"), content),
    "as an event": lambda key, content: (
        SourceSigner("test", WATCH_KEY).headers("access.lifecycle", key, content)[0][1] + content
    ),
    "before its content changed": lambda key, content: SIGNATURE.sign(key, content)[:-1] + b" ",
}


@pytest.mark.parametrize("signed", SIGNED_WRONGLY)
def test_a_forged_snapshot_is_ignored(signed: str) -> None:
    world = World()
    world.hears(given_until(100), given_until(5000, "other"))
    world.at(1)
    forge(world, SIGNED_WRONGLY[signed], hide="g")
    again = restarted(world)
    assert again.watch.position == 1, "the snapshot before it is restored"
    assert ids(again) == {"g", "other"}
    again.at(111)
    assert overdue(again) == ["g"]
    again.hears(given_until(6000, "later"))  # and the next snapshots are written as ever
    assert ids(restarted(again)) == {"g", "other", "later"}


def test_what_the_watch_has_signed_is_restored() -> None:
    """The forgery above fails because of its signature, and of nothing else."""
    world = World()
    world.hears(given_until(100), given_until(5000, "other"))
    forge(world, SIGNATURE.sign, hide="g")
    assert ids(restarted(world)) == {"other"}


def test_a_part_that_was_exchanged_makes_its_snapshot_useless() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(5000, "other"))
    records = world.paper.manifest_records
    (newest, _, _), (before, _, _) = (json.loads(content_of(one))["parts"][0] for one in records)
    world.paper.change(newest, world.paper.parts[before])
    again = World(world.paper)
    assert again.watch.position == 1 and ids(again) == {"g"}


def test_an_old_snapshot_that_is_sent_again_costs_reading_only() -> None:
    world = World()
    world.hears(given_until(100), given_until(5000, "other"))
    world.at(1)
    old = dict(world.paper.records)
    world.hears(removed(50), given_until(150, "later"))
    world.at(111)
    world.hears(given_until(5000, "last"))
    world.hears(given_until(5000, "very last"))
    assert overdue(world) == []
    expected = world.watch.judge.state.sources.to_json()
    world.paper.records |= old  # its parts are deleted by now
    [manifest] = [one for one in old.values() if b"/manifest/" in one.name]
    world.paper.append(manifest.name.decode(), manifest.content)
    again = World(world.paper)
    assert again.watch.position == 1 and ids(again) == {"g", "other"}
    again.head, again.records = world.head, world.records
    again.hears_again()
    assert ids(again) == {"g", "other", "later", "last", "very last"}
    assert again.watch.judge.state.sources.to_json() == expected
    again.paper.end_offset = again.records
    for second in (161, 162):
        again.at(second)
    assert overdue(again) == ["later"]


HOSTILE: dict[str, tuple[str, bytes]] = {
    "nested": ("snapshot-9000/manifest/0/-1", b"[" * 200_000),
    "signed by nobody": ("snapshot-9000/manifest/0/-1", bytes(72) + b"[" * 200_000),
    "short": ("snapshot-9000/manifest/0/-1", b"x"),
    "empty": ("snapshot-9000/manifest/0/-1", b""),
    "too large": ("snapshot-9000/manifest/0/-1", bytes(MAX_MANIFEST_BYTES + 1)),
    "a number of 5000 digits": (f"snapshot-{'9' * 5000}/manifest/0/-1", b"{}"),
    "the last number": (f"snapshot-{'9' * 18}/manifest/0/-1", b"{}"),
    "other digits": ("snapshot-٣/manifest/٣/-1", b"{}"),
    "endless parts": ("snapshot-9000/manifest/999999999999/-1", b"{}"),
    "itself": ("snapshot-9000/manifest/0/999999999999999999", b"{}"),
    "no snapshot": ("anything", b"[" * 200_000),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_record_neither_stops_the_watch_nor_hides_its_snapshots(what: str) -> None:
    world = World()
    world.hears(given_until(100))
    world.paper.append(*HOSTILE[what])
    again = restarted(world)
    assert again.watch.position == 1 and ids(again) == {"g"}
    for name in ("second", "third", "fourth"):
        again.hears(given_until(5000, name))
        again.paper.append(*HOSTILE[what])
    last = restarted(again)
    assert last.watch.position == again.watch.position and ids(last) == {"g", "second", "third", "fourth"}


@pytest.mark.parametrize(
    "position",
    [
        {"sealed_offset": 10**15, "next_offset": 10**15, "size": 10**15},
        {"sealed_offset": 5},
        {"size": 3},
        {"epoch": 1, "size": 3},
        {"next_offset": -1},
        {"sealed_offset": -5},
    ],
)
def test_a_position_beyond_the_verified_log_is_not_used(position: dict[str, int]) -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(5000, "other"))
    newest = world.paper.manifest_records[0]
    content = json.loads(content_of(newest))
    assert content["position"] == asdict(LogPosition(2, 2, 3))
    content["position"] |= position
    world.paper.change_content(newest, json.dumps(content).encode())
    again = World(world.paper)
    assert again.watch.position == 1 and ids(again) == {"g"}


def test_a_position_in_an_epoch_without_entries_is_used() -> None:
    world = World()
    world.hears(given_until(100))
    LogPosition(1, 0, 1, 1, 1).check(world.paper)
    with pytest.raises(SnapshotUnusableError, match="beyond the verified entries, 1"):
        LogPosition(2, 0, 1, 1, 1).check(world.paper)


def named(instance: str, name: str = "g") -> Any:
    source = EventSource("x", instance, f"n{name}", "t")
    return grant("grant.activated", 0, name, source=source, expiry_source="unknown")


def test_names_of_megabytes_stop_neither_the_watch_nor_its_snapshots() -> None:
    world = World()
    letters = [secrets.token_hex(950_000) for _ in range(5)]  # cannot be compressed much
    for number, instance in enumerate(letters):
        world.hears(named(instance, f"g{number}"))
    wrong = EventSource("y", letters[0], "r", "t")
    wrong = EventSource("y", letters[0], "r", "t")  # its history names the id that it reports about
    world.hears(grant("grant.revoked", 5, "y" * 1_900_000, source=wrong, removal_evidence="confirmed"))
    assert world.watch._failure is None and world.paper.writes == 6
    records = world.paper.records.values()
    assert max(len(one.content or b"") for one in records) < MAX_SEALED_BYTES / 2
    sources = Snapshot.load(world.paper, world.paper).sources
    assert len(json.dumps(sources)) < 20_000
    again = World(world.paper)
    assert again.watch.position == world.watch.position and ids(again) == ids(world)
    assert again.watch.judge.state.sources.to_json() == world.watch.judge.state.sources.to_json()


def test_histories_of_many_sources_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_PART_BYTES", 3000)
    world = World()
    for number in range(25):
        world.hears(named(f"source-{number}", f"g{number}"))
    assert max(map(len, world.paper.stored)) < 10_000
    assert len(world.paper.parts) > 4
    again = World(world.paper)
    assert again.watch.judge.state.sources.to_json() == world.watch.judge.state.sources.to_json()


def test_invented_sources_beyond_a_number_share_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_histories, "MAX_SOURCES", 3)
    registrar, vault = Registrar("test"), LocalSigner.generate()
    registrar.init()
    registrar.register("vault", "prod", [key_of(vault)], 0)
    paper = Paper()
    paper.keys = registrar.keys
    world = World(paper)
    for number in range(20):
        world.hears(named(f"source-{number}", f"g{number}"))
    stranger = EventSource("x", "source-19", "r", "t")
    world.hears(grant("grant.revoked", 5, "g0", source=stranger, removal_evidence="confirmed"))
    world.signer = vault
    world.hears(given_until(5000, "true"))
    sources = world.watch.judge.state.sources
    assert [one.source.instance for one in sources] == ["source-0", "source-1", "source-2", "*", "prod"]
    assert len(ids(world)) == 22, "the grants of all are followed, the one that source-19 never gave included"
    world.paper.end_offset = world.records
    for second in (10, 12):
        world.at(second)
    claims = [event.finding for _, event in world.paper.said if event.finding and event.finding.rule == "foreign_claim"]
    assert [one.key for one in claims if one] == [str(OTHER_SOURCES)]
    assert world.watch.judge.faults == [] and sources.of("vault/prod").signed


def test_idle_sources_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_histories, "MAX_SOURCES", 4)
    world = World()
    for number in range(3):
        world.hears(named(f"source-{number}", f"g{number}"))
    world.at(1)
    judge = world.watch.judge
    list(judge.forget(judge.state.sources.of("x/source-0").last))
    assert len(list(judge.state.sources)) == 3, "they have sent something since"
    list(judge.forget(judge.judged_until + 1))
    assert list(judge.state.sources) == []
    world.at(3600)
    assert judge.faults == []


def test_a_snapshot_that_cannot_be_written_does_not_end_the_watch() -> None:
    world = World()
    world.hears(given_until(100))
    before = metrics.SNAPSHOT_FAILURES._value.get()
    world.paper.broken = "too large"
    world.hears(given_until(5000, "second"))
    assert metrics.SNAPSHOT_FAILURES._value.get() == before + 1
    world.at(111)
    assert overdue(world) == ["g"]
    assert restarted(world).watch.position > 1 and World(world.paper).watch.position == 1
    world.paper.broken = ""
    world = restarted(world)
    world.hears(given_until(5000, "third"))
    assert World(world.paper).watch.position == world.watch.position


def test_after_a_failed_snapshot_the_next_one_is_written() -> None:
    port = MemorySnapshots()
    made = FactArchive(Snapshot.load(port, EndlessSealedTopic())).snapshot(
        LogPosition(1, 1, 1), World().watch.judge.state
    )
    port.broken = "too large"
    made.store(port)
    assert port.records == {}
    port.broken = ""
    made.store(port)
    assert port.writes == 1 and Snapshot.load(port, EndlessSealedTopic()) == made


def test_the_keys_that_are_registered_for_the_watch_count() -> None:
    registrar, new = Registrar("test"), LocalSigner.generate()
    log_keys = LogKeys.single(WATCH_KEY.public_key)
    logs = SealedLogs(Cluster({}), "test", log_keys, lambda _: None, SourceSigner("test", new))
    findings = KafkaFindings(logs, SchemaCatalog(()), WatchPolicy())
    assert findings.own_public_keys() == {new.public_key}, "before anything is registered"
    findings._sources.keys = registrar.keys
    old = registrar.init(SYSTEM)[SYSTEM]
    assert findings.own_public_keys() == {old.public_key}
    now = datetime.now(UTC)
    for until, expected in ((timedelta(hours=1), {old, new}), (timedelta(0), {new})):
        keys = [key_of(old, valid_until=now + until), key_of(new)]
        assert registrar.register(SYSTEM, "test", keys, round((now + until).timestamp() * 1000) - 4_000_000)
        assert findings.own_public_keys() == {one.public_key for one in expected}
