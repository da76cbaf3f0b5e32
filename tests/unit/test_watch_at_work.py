"""The whole watch with a list instead of Kafka: what it publishes and when. Delivery is tested elsewhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

import pytest
from confluent_kafka import Message
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.base.errors import EXIT_STOPPED
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.kafka.sealed_log import SealedBatchVerifier, SealedLogProblem, SealedLogs, SealedLogStoppedError
from grantledger.ledger import batch as batches
from grantledger.ledger.entry import Genesis, encode_headers
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.processors.access import NEVER, SECOND
from grantledger.processors.policy import AccessLimits, WatchPolicy
from grantledger.processors.watch import decoding
from grantledger.processors.watch.app import DeliveredRecord
from grantledger.processors.watch.clock import Clock
from grantledger.processors.watch.core.judge import Judge, KnownFindings
from grantledger.processors.watch.daemon_call import call_in_daemon
from grantledger.processors.watch.findings import FindingEvents, Outgoing
from grantledger.processors.watch.kafka_findings import KafkaFindings
from grantledger.processors.watch.snapshot import PART_ROWS, Snapshot
from grantledger.processors.watch.watcher import Watcher
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Actor, Approval, Event, Finding, Resource, Source, Subject
from grantledger.schemas.finding_rules import FINDING_RULES
from grantledger.schemas.topics import COMMANDS_TOPIC
from support.events import written
from support.snapshot_memory import MemorySnapshots

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = int(NOON.timestamp()) * SECOND
SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=10))


class FaustMessage(NamedTuple):
    value: bytes
    offset: int
    timestamp: float
    timestamp_type: int


class Paper(MemorySnapshots):
    """Published findings in a list. ``end_offset`` is that of the log in Kafka."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = 0
        self.sealed_log: dict[int, Message] = {}
        self.next_record = 0
        self.reads: list[tuple[int, int]] = []
        self.unreachable = False
        self.problems: list[tuple[str, int]] = []
        self.said: list[tuple[str, Event]] = []
        self.end_offset = 0
        self.topic_id = bytes(16)
        self.only_markers = False
        self.deaf = False

    def take_over(self) -> KnownFindings:
        known = KnownFindings()
        for _, event in self.said:
            finding = event.finding
            assert finding is not None
            deadline = round(finding.deadline.timestamp() * SECOND) if finding.deadline else 0
            known.add(event.event_type, (finding.rule, finding.key, deadline), finding.accept_index)
        return known

    def append(self, value: bytes) -> Message:
        """Append a record to the sealed topic; a transaction marker follows it."""
        message = FaustMessage(value=value, offset=self.next_record, timestamp=0.0, timestamp_type=1)
        self.sealed_log[self.next_record] = cast(Message, DeliveredRecord(message))
        self.next_record += 2
        return self.sealed_log[message.offset]

    def batch_verifier(self, start: int) -> SealedBatchVerifier:
        def note(problem: SealedLogProblem) -> None:
            self.problems.append((problem.rule, problem.offset))

        keys = LogKeys.single(SIGNER.public_key)
        verifier = SealedBatchVerifier(
            SealedLogs(Cluster({}), "test", keys, note), LIFECYCLE_TOPIC, 0, begin=self.begin
        )
        verifier.start_after(reversed(list(self.sealed_records(0, start))))
        self.reads.clear()
        return verifier

    def sealed_records(self, start: int, end: int) -> Iterator[Message]:
        if self.unreachable:
            raise KafkaUnavailableError("no answer")
        self.reads.append((start, end))
        return iter([record for offset, record in self.sealed_log.items() if start <= offset < end])

    def time(self) -> int:
        return START

    def publish(self, records: Sequence[Outgoing]) -> int | None:
        if self.deaf:
            raise OSError("the brokers do not answer")
        self.said += [(record.topic, record.event) for record in records]
        return None

    def log_end(self) -> tuple[bytes, int]:
        return self.topic_id, self.end_offset

    def is_empty(self, start: int, end: int) -> bool:
        return self.only_markers

    def findings(self) -> list[tuple[str, str]]:
        return [
            (event.event_type, event.finding.rule)
            for topic, event in self.said
            if event.finding and topic != COMMANDS_TOPIC
        ]


class World:
    """A watch, its clocks, and the log that it reads."""

    def __init__(self, paper: Paper | None = None, step: float = 0.0, snapshot_every: int = 0) -> None:
        self.paper = paper or Paper()
        self.seconds = 0.0
        self.step = step
        clock = Clock(lambda: START + int((self.seconds + self.step) * SECOND), self.boot, self.boot)
        catalog = SchemaCatalog((event_schema(),))
        self.watch = Watcher(
            POLICY,
            "test",
            cast(KafkaFindings, self.paper),
            self.paper,
            catalog,
            lag_bound=60 * SECOND,
            snapshot_every=snapshot_every,
            keep_days=30,
            clock=clock,
        )
        self.head = batches.Head.at_genesis(Genesis("test/access.lifecycle/0/0", bytes(16), 0))
        self.records = 0
        asyncio.run(self.start())

    async def start(self) -> None:
        await self.watch.take_over()
        await self.watch.restore()

    def opens_epoch(self) -> None:
        """Open a new epoch on a topic that was created again: its entries and its offsets begin at 0."""
        epoch = Genesis("test/access.lifecycle/0/1", bytes([1]) * 16, 0, self.head.size, self.head.frontier.root())
        self.head, self.records, self.paper.topic_id = batches.Head.at_genesis(epoch), 0, epoch.topic_id

    def boot(self) -> int:
        return int((1000 + self.seconds) * SECOND)

    def batch(
        self, *events: Event, change: Callable[[bytes], bytes] = bytes, encode: Callable[[Event], bytes] | None = None
    ) -> bytes:
        records = batches.Records()
        encode = encode or EventEncoder().encode
        for event in events:
            records.flags.append(1)
            records.offsets.append(self.records)
            records.append_times.append(int(event.occurred_at.timestamp() * 1000))
            records.keys.append(event.key.encode())
            records.values.append(change(encode(event)))
            records.headers.append(encode_headers([]))
            self.records += 1
        batch, self.head = batches.seal(self.head, records, self.records, NOON, SIGNER)
        self.paper.end_offset = self.records
        return batches.encode(batch)

    def hears(self, *events: Event) -> None:
        self.take(self.batch(*events))

    def take(self, value: bytes) -> None:
        """Append a record to the sealed topic and deliver it."""
        self.deliver(self.paper.append(value))

    def deliver(self, record: Message) -> None:
        async def take() -> None:
            await self.watch.take(record)
            if self.watch.maintenance is not None:
                await self.watch.maintenance

        asyncio.run(take())

    def hears_again(self) -> None:
        """Hear the whole sealed topic, as Faust delivers it after a seek to its beginning."""
        for record in list(self.paper.sealed_log.values()):
            self.deliver(record)

    def hears_unchecked(self, *events: Event) -> None:
        """Hear events as another program may write them: without a look at our rules."""
        self.take(self.batch(*events, encode=unchecked))

    def at(self, seconds: float) -> None:
        async def tick() -> None:
            await self.watch.tick()
            if self.watch.maintenance is not None:
                await self.watch.maintenance

        self.seconds = seconds
        asyncio.run(tick())


def unchecked(event: Event) -> bytes:
    """Return an event encoded by its schema alone."""
    schema = event_schema()
    return written(event.to_datum(), schema.definition, schema.prefix)


def varint(number: int) -> bytes:
    """Return a number as Avro writes it."""
    left, written = (number << 1) ^ (number >> 63), bytearray()
    while left >= 0x80:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*written, left])


def grant(event_type: str, at: float, name: str = "g", **more: Any) -> Event:
    given: dict[str, Any] = {
        "event_type": event_type,
        "occurred_at": NOON + timedelta(seconds=at),
        "source": Source("vault", "prod", f"{name}:{event_type}:{at}", "lease"),
        "subject": Subject("alice", "human"),
        "actor": Actor("alice"),
        "resource": Resource("database", f"db-{name}", "production"),
        "entitlement": "rw",
        "grant_id": name,
        "grant_id_kind": "native",
    }
    return Event(**given | more)


def given_until(ends: float, name: str = "g") -> Event:
    return grant("grant.activated", 0, name, expires_at=NOON + timedelta(seconds=ends), expiry_source="native")


def started(at: float, name: str) -> Event:
    return grant("grant.activated", at, name, expiry_source="unknown")


def removed(at: float) -> Event:
    return grant("grant.revoked", at, removal_evidence="confirmed")


def test_a_finding_a_command_and_the_resolution() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(110)
    assert world.paper.said == []
    world.at(110.2)
    assert world.paper.findings() == [("finding.opened", "overdue"), ("revoke.requested", "overdue")]
    [command] = [event for topic, event in world.paper.said if topic == COMMANDS_TOPIC]
    assert command.finding and command.finding.key == command.grant_id == "g"
    assert command.finding.deadline == NOON + timedelta(seconds=100)
    assert (command.subject.id, command.entitlement, command.grant_id_kind) == ("alice", "rw", "native")
    assert command.resource == Resource("database", "db-g", "production")
    world.hears(removed(150))
    world.at(151)
    assert world.paper.findings()[-1] == ("finding.resolved", "overdue")
    evidence = json.loads(world.paper.said[-1][1].finding.evidence)  # type: ignore[union-attr]
    assert evidence["late_seconds"] == 50


def test_a_restart_publishes_nothing_twice_and_repeats_have_the_same_id() -> None:
    first = World()
    event = given_until(100)
    first.hears(event)
    first.at(120)
    first.paper.lose()  # the whole log is read again
    again = World(first.paper)
    again.hears_again()
    again.at(130)
    assert len(first.paper.findings()) == 2
    fresh = World()
    fresh.hears(event)
    fresh.at(500)  # nothing on record, and looking much later
    assert [one.event_id for _, one in fresh.paper.said] == [one.event_id for _, one in first.paper.said]


def test_a_snapshot_never_contains_half_a_batch() -> None:
    world = World()
    world.hears(started(0, "first"))
    record = world.paper.append(world.batch(*(started(1 + at, f"g{at}") for at in range(1_200))))

    async def take_and_maintain() -> None:
        taking = asyncio.create_task(world.watch.take(record))
        while world.watch.judge.state.size <= 1:
            await asyncio.sleep(0)
        assert world.watch.judge.state.size < 1_201
        await world.watch._start_maintenance()
        await taking
        assert world.watch.maintenance is not None
        await world.watch.maintenance

    asyncio.run(take_and_maintain())
    snapshot = Snapshot.load(world.paper)
    [source] = snapshot.sources
    assert source["last"] == START + (snapshot.position.size - 1) * SECOND


def test_a_snapshot_is_written_when_the_end_of_the_log_is_reached() -> None:
    world = World(snapshot_every=NEVER)
    world.hears(*(started(0, f"g{at}") for at in range(PART_ROWS)))
    assert Snapshot.load(world.paper).position.size == 0
    world.at(1)
    assert Snapshot.load(world.paper).position.size == PART_ROWS
    world.hears(started(2, "one more"))
    world.at(3)
    assert Snapshot.load(world.paper).position.size == PART_ROWS


def test_lag_hides_the_answer_and_no_alarm_is_false() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    late = world.batch(removed(105))  # in Kafka, not applied
    for seconds in (111, 112, 150):
        world.at(seconds)
    assert world.paper.said == []
    world.take(late)
    world.at(160)
    world.at(161)
    assert world.paper.said == []


def test_after_the_lag_bound_it_publishes_unconfirmed_findings() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.batch(removed(105))
    world.at(111)
    world.at(170.9)
    assert world.paper.said == []
    world.at(171.1)
    assert ("finding.opened", "overdue") in world.paper.findings()
    opened = next(event for _, event in world.paper.said if event.event_type == "finding.opened")
    assert "lag 1" in json.loads(opened.finding.evidence)["unconfirmed"]  # type: ignore[union-attr]


def test_markers_at_the_end_of_the_log_are_not_waited_for() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.paper.end_offset += 1  # a transaction marker takes an offset, and nothing will ever be sealed for it
    world.paper.only_markers = True
    for seconds in (111, 112.5, 113):
        world.at(seconds)
    assert ("finding.opened", "overdue") in world.paper.findings()


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_clock_step_publishes_nothing_early_and_is_reported(step: float) -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.step = step
    world.at(60)
    world.at(105)
    assert {rule for _, rule in world.paper.findings()} == {"clock_skew"}
    assert [kind for kind, _ in world.paper.findings()] == ["finding.opened", "finding.resolved"]


def test_a_record_that_is_no_batch_is_reported_and_skipped() -> None:
    world = World()
    world.hears(given_until(100))
    world.take(b"no batch")
    world.hears(given_until(5000, "later"))
    for seconds in (1, 2, 111):
        world.at(seconds)
    assert world.paper.problems == [("sealed_record_invalid", 2)]
    assert set(world.watch.judge.state.grants) == {"g", "later"}
    assert ("finding.opened", "overdue") in world.paper.findings()  # the others are judged all the same


def test_entries_that_retention_has_deleted_are_a_finding_once() -> None:
    world = World()
    world.paper.begin = 4
    asyncio.run(world.start())
    world.batch(given_until(100, "lost"), given_until(100, "lost as well"))
    world.batch(given_until(100, "lost too"))
    world.hears(given_until(100))
    world.hears(given_until(5000, "later"))
    for seconds in (1, 2, 111):
        world.at(seconds)
    first = world.paper.said[0][1].finding
    assert first is not None and first.rule == "watch_fault" and first.key == "entries 0 to 2"
    assert [rule for _, rule in world.paper.findings()].count("watch_fault") == 1
    assert ("finding.opened", "overdue") in world.paper.findings()
    assert set(world.watch.judge.state.grants) == {"g", "later"}


def test_a_fault_in_one_judgement_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Judge._grant_candidates

    def faulty(self: Judge, one: Any) -> Any:
        if one.grant_id == "bad":
            raise KeyError("bug")
        return judged(self, one)

    monkeypatch.setattr(Judge, "_grant_candidates", faulty)
    world = World()
    world.hears(given_until(100, "bad"), given_until(100, "good"))
    world.at(200)
    world.at(201)
    found = {(event.finding.rule, event.finding.key) for _, event in world.paper.said if event.finding}
    assert found == {("overdue", "good"), ("watch_fault", "grant bad")}


def faults(world: World) -> list[tuple[str, str]]:
    """Return the key and evidence of each fault."""
    return [
        (event.finding.key, json.loads(event.finding.evidence)["error"])
        for _, event in world.paper.said
        if event.finding and event.finding.rule == "watch_fault"
    ]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("grant_id_kind", {"grant_id_kind": "nativ"}),
        ("grant_id_kind", {"grant_id_kind": None}),
        ("grant_id_kind", {"grant_id_kind": "native\0"}),
        ("subject.kind", {"subject": Subject("alice", "robot")}),
        ("actor.kind", {"actor": Actor("alice", "robot")}),
        ("outcome", {"outcome": "perhaps"}),
        ("expiry_source", {"expiry_source": "somewhere"}),
        ("expiry_source", {"expiry_source": None}),
        ("expires_at", {"expires_at": None}),
        ("expires_at", {"expires_at": datetime(9999, 12, 31, tzinfo=UTC)}),
        ("starts_at", {"starts_at": datetime(1969, 12, 31, tzinfo=UTC)}),
        ("removal_evidence", {"removal_evidence": "sworn"}),
        ("removal_evidence", {"event_type": "grant.revoked"}),
        ("approvals[1].decision", {"approvals": (Approval("carol", "approved"), Approval("dan", "maybe"))}),
        ("approvals[0].at", {"approvals": (Approval("carol", "approved", at=datetime(2300, 1, 1, tzinfo=UTC)),)}),
        ("tenant", {"tenant": ""}),
        ("resource", {"resource": None}),
        ("entitlement", {"entitlement": ""}),
        ("source.instance", {"source": Source("vault", "", "1", "lease")}),
        ("event_type", {"event_type": "grant.given"}),
        ("session_id", {"event_type": "session.started"}),
        ("requested_seconds", {"requested_seconds": -1}),
    ],
)
def test_an_event_that_the_rules_forbid_is_one_fault_and_the_others_are_judged(
    field: str, wrong: dict[str, Any]
) -> None:
    world = World()
    world.hears_unchecked(given_until(50, "before"), replace(given_until(50, "odd"), **wrong), given_until(50))
    for seconds in (100, 101, 200):
        world.at(seconds)
    assert faults(world) == [("entry 1", f"InvalidEventError: {field}")]
    assert sorted(world.watch.judge.state.grants) == ["before", "g"]
    overdue = {event.finding.key for _, event in world.paper.said if event.finding and event.finding.rule == "overdue"}
    assert overdue == {"before", "g"}
    said = len(world.paper.said)
    again = World(world.paper)  # with what was kept
    again.at(300)
    world.paper.lose()
    again = World(world.paper)  # without
    again.hears_again()
    assert sorted(again.watch.judge.state.grants) == ["before", "g"]
    again.at(301)
    assert len(world.paper.said) == said


@pytest.mark.parametrize(
    "more",
    [
        {"subject": Subject("al\0ice")},
        {"subject": Subject("")},
        {"resource": Resource("", "db", "")},
        {"request_id": "r" * 100_000},
        {"source": Source("vault", "prod", "é" * 10_000, "\0")},
        {"expires_at": NOON - timedelta(days=20_000)},
    ],
    ids=["a NUL", "nobody", "no kind of resource", "a long id", "a long name", "an end long ago"],
)
def test_odd_fields_that_the_rules_allow_are_judged(more: dict[str, Any]) -> None:
    world = World()
    world.hears(replace(given_until(100), **more))
    world.at(200)
    assert world.paper.findings() == [("finding.opened", "overdue"), ("revoke.requested", "overdue")]


def test_a_report_that_cannot_be_encoded_is_one_fault_and_the_others_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where an earlier version has kept an event that the rules forbid."""
    monkeypatch.setattr(decoding, "forbidden", lambda _: {})
    world = World()
    odd = grant("grant.activated", 0, "odd", expires_at=NOON, expiry_source="native", grant_id_kind="nativ")
    world.hears_unchecked(odd, given_until(100))
    for seconds in (200, 201, 202):
        world.at(seconds)
    assert faults(world) == [("grant odd", "InvalidEventError: grant_id_kind")]
    assert ("finding.opened", "overdue") in world.paper.findings()
    again = World(world.paper)
    world.hears(replace(removed(210), grant_id="odd", source=Source("vault", "prod", "odd:removed", "lease")))
    for one in (world, again):
        one.at(300)
        one.at(301)
    assert len(world.paper.said) == 4, "the resolution of what could not be said is not said either"


@pytest.mark.parametrize("letter", ["x", "\0", "é"])
def test_a_report_that_is_too_large_is_one_fault_and_the_others_are_written(letter: str) -> None:
    world = World()
    name = letter * 1_500_000
    world.hears(given_until(100, name), given_until(100))
    for seconds in (200, 201):
        world.at(seconds)
    [(key, error)] = faults(world)
    assert key.startswith(f"grant {letter}") and len(key) < 1000
    assert error == "InvalidEventError: event"
    assert [event.grant_id for topic, event in world.paper.said if topic == COMMANDS_TOPIC] == ["g"]


def test_a_fault_in_one_report_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = FindingEvents.of_change

    def faulty(self: FindingEvents, change: Any, state: Any, remark: Any) -> Any:
        if change.finding.key == "bad":
            raise KeyError("bug")
        return reported(self, change, state, remark)

    monkeypatch.setattr(FindingEvents, "of_change", faulty)
    world = World()
    world.hears(given_until(100, "bad"), given_until(100, "good"))
    world.at(200)
    world.at(201)
    found = {(event.finding.rule, event.finding.key) for _, event in world.paper.said if event.finding}
    assert found == {("overdue", "good"), ("watch_fault", "grant bad")}


def test_a_standby_publishes_nothing() -> None:
    world = World()
    world.hears(given_until(100))
    world.watch.stand_by()
    world.at(200)
    assert world.paper.said == []
    world.watch.resume()
    world.at(201)
    assert ("finding.opened", "overdue") in world.paper.findings()


def test_it_continues_from_a_snapshot_and_publishes_nothing_twice() -> None:
    world = World()
    world.hears(given_until(100), given_until(5000, "other"))
    world.at(111)
    said = list(world.paper.said)
    again = World(world.paper)
    assert again.watch.position == 1 and set(again.watch.judge.state.grants) == {"g", "other"}
    again.at(200)
    assert again.paper.said == said
    again.head, again.records = world.head, world.records
    again.hears(removed(150))
    again.at(201)
    assert again.paper.findings()[-1] == ("finding.resolved", "overdue")


def test_a_clean_stop_writes_a_snapshot() -> None:
    world = World(snapshot_every=NEVER)
    asyncio.run(world.watch.store_last_snapshot())
    assert world.paper.writes == 0, "there is nothing new"
    world.hears(given_until(100), given_until(5000, "other"))
    assert world.paper.writes == 0
    asyncio.run(world.watch.store_last_snapshot())
    assert world.paper.writes == 1
    again = World(world.paper)
    assert again.watch.position == 1 and set(again.watch.judge.state.grants) == {"g", "other"}
    again.at(200)
    assert overdue(again) == ["g"]


def test_a_standby_and_a_failed_watch_write_no_snapshot_at_their_stop() -> None:
    world = World(snapshot_every=NEVER)
    world.hears(given_until(100))
    world.watch.stand_by()
    asyncio.run(world.watch.store_last_snapshot())
    world.watch.resume()
    world.paper.deaf = True
    with pytest.raises(OSError, match="do not answer"):
        world.at(111)
    asyncio.run(world.watch.store_last_snapshot())
    assert world.paper.writes == 0


def test_a_snapshot_that_hangs_does_not_keep_the_process_from_ending() -> None:
    hanging = threading.Event()

    async def stop() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call_in_daemon(lambda: hanging.wait() and None), 0.05)

    asyncio.run(stop())  # waits for the threads of asyncio.to_thread
    hanging.set()


def test_a_start_falls_back_to_the_snapshot_before_and_then_to_the_whole_log() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(100, "other"))
    first, second = sorted(world.paper.parts)
    world.paper.parts[second] = b"nothing of ours"
    again = World(world.paper)
    assert again.watch.position == 1 and set(again.watch.judge.state.grants) == {"g"}
    world.paper.parts[first] = b"nothing of ours"
    again = World(world.paper)
    assert again.watch.position == 0 and again.watch.judge.state.grants == {}


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_machine_that_starts_with_a_wrong_clock_finds_nothing_early_or_late(step: int) -> None:
    world = World(step=step)
    world.hears(given_until(1800))
    world.at(1810)
    assert world.paper.findings() == [("finding.opened", "clock_skew"), ("finding.resolved", "clock_skew")]
    [skew, _] = [event for _, event in world.paper.said]
    assert skew.finding and json.loads(skew.finding.evidence) == {"jumped_seconds": step}
    world.at(1810.2)
    assert world.paper.findings()[2:] == [("finding.opened", "overdue"), ("revoke.requested", "overdue")]


@pytest.mark.parametrize(
    ("what", "instead", "wrong"),
    [
        (b"carol", b"\xff\x00\xffol", ""),
        (b"carol", b"\xed\xa0\x80ol", ""),
        (b"approved", b"\xff\xfe\x00roved", "approvals[0].decision"),
        (varint(START + SECOND), varint((1 << 63) - 1), "approvals[0].at"),
        (varint(START + SECOND), varint(-(1 << 63)), "approvals[0].at"),
        (varint(START + 50 * SECOND), varint((1 << 62) + 5), "expires_at"),
    ],
    ids=[
        "a reviewer in no text", "half a letter", "a decision in no text", "after the calendar", "before the calendar",
        "an end after the calendar",
    ],
)  # fmt: skip
def test_an_odd_event_keeps_no_other_back(what: bytes, instead: bytes, wrong: str) -> None:
    approvals = (Approval("carol", "approved", at=NOON + timedelta(seconds=1)),)
    odd = replace(given_until(50, "odd"), approvals=approvals)
    world = World()
    batch = world.batch(odd, given_until(100), change=lambda value: value.replace(what, instead))
    world.take(batch)
    world.at(200)
    grants = {"g"} if wrong else {"odd", "g"}
    assert set(world.watch.judge.state.grants) == grants
    assert faults(world) == ([("entry 0", f"InvalidEventError: {wrong}")] if wrong else [])
    overdue = {event.finding.key for _, event in world.paper.said if event.finding and event.finding.rule == "overdue"}
    assert overdue == grants
    assert set(World(world.paper).watch.judge.state.grants) == grants


def stops(world: World) -> bool:
    """Whether the watch ends with exit code 3, and stays stopped."""
    with pytest.raises(SealedLogStoppedError) as stopped:
        world.at(1)
    return stopped.value.exit_code == EXIT_STOPPED


def test_entries_that_no_sealed_record_contains_stop_the_watch() -> None:
    world = World()
    world.hears(given_until(100))
    world.batch(removed(50))  # never in the sealed topic
    world.hears(given_until(5000, "later"))
    assert world.paper.reads == [(1, 2)], "it looks for them first"
    assert world.paper.problems == [("sealed_log_discontinuous", 2)] and stops(world)
    world.hears(given_until(5000, "last"))
    assert set(world.watch.judge.state.grants) == {"g"}


def test_a_batch_that_contradicts_the_log_stops_the_watch() -> None:
    world = World()
    genesis = world.head
    world.hears(given_until(100))
    world.head, world.records = genesis, 0
    world.hears(given_until(5000))  # signed, and about the same entry
    assert world.paper.problems == [("sealed_log_discontinuous", 2)] and stops(world)
    grants = world.watch.judge.state.grants
    assert set(grants) == {"g"} and world.watch.position == 1


def forged(world: World, **changes: Any) -> bytes:
    """Return a batch that claims to be the next one, signed with another key."""
    other = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    batch, _ = batches.seal(world.head, batches.Records(), world.records, NOON, other)
    return batches.encode(replace(batch, **changes))


@pytest.mark.parametrize("changes", [{}, {"first_index": 7}, {"first_index": 0}, {"previous_leaf_hash": bytes(32)}])
def test_a_batch_that_another_key_signed_is_skipped_with_a_critical_finding(changes: dict[str, Any]) -> None:
    world = World()
    world.hears(given_until(100))
    world.take(forged(world, **changes))
    world.hears(removed(50))
    world.at(200)
    assert world.paper.problems == [("sealed_record_invalid", 2)]
    assert FINDING_RULES["sealed_record_invalid"].severity == "critical"
    assert world.paper.findings() == []


@pytest.mark.parametrize("first", [0, 1, 2, 3])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_record_that_is_delivered_before_earlier_ones_is_applied_after_them(first: int, restarted: bool) -> None:
    world = World()
    world.hears(given_until(100))
    if restarted:
        head, records = world.head, world.records
        world = World(world.paper)
        world.head, world.records = head, records
    later = [given_until(5000, "later"), removed(50), given_until(5000, "third"), given_until(5000, "last")]
    delivered = [world.paper.append(world.batch(event)) for event in later]
    order = [delivered[first], *world.paper.sealed_log.values()]  # the seek takes effect
    for record in order:
        world.deliver(record)
    world.at(200)
    assert world.paper.problems == [] and world.paper.findings() == []
    assert set(world.watch.judge.state.grants) == {"g", "later", "third", "last"}
    assert world.watch.position == delivered[-1].offset() + 1  # type: ignore[operator]
    assert len(world.paper.reads) <= 1, "records in order are not read again"


@pytest.mark.parametrize("junk", [lambda world: b"no batch", forged], ids=["no batch", "another key"])
def test_a_skipped_record_that_is_delivered_first_hides_none_before_it(junk: Callable[[World], bytes]) -> None:
    world = World()
    world.hears(given_until(100))
    bad = junk(world)
    world.paper.append(world.batch(removed(50)))
    skipped = world.paper.append(bad)
    world.paper.append(world.batch(given_until(5000, "later")))
    for record in (skipped, *world.paper.sealed_log.values()):
        world.deliver(record)
    world.at(200)
    assert set(world.paper.problems) == {("sealed_record_invalid", 4)}
    assert world.paper.findings() == [] and set(world.watch.judge.state.grants) == {"g", "later"}


def test_a_gap_that_cannot_be_read_now_ends_the_watch_and_is_no_discontinuity() -> None:
    world = World()
    world.hears(given_until(100))
    world.paper.append(world.batch(removed(50)))
    last = world.paper.append(world.batch(given_until(5000, "later")))
    world.paper.unreachable = True
    world.deliver(last)
    with pytest.raises(KafkaUnavailableError):
        world.at(1)
    assert world.paper.problems == [] and set(world.watch.judge.state.grants) == {"g"}


def test_records_that_are_delivered_again_are_ignored() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(5000, "later"))
    for record in list(world.paper.sealed_log.values()) * 2:
        world.deliver(record)
    world.hears(given_until(5000, "last"))
    world.at(1)
    assert world.paper.problems == [] and world.paper.reads == []
    assert set(world.watch.judge.state.grants) == {"g", "later", "last"}


def test_records_before_the_position_of_the_snapshot_are_ignored() -> None:
    world = World()
    world.hears(given_until(100))
    world.hears(given_until(5000, "later"))
    again = World(world.paper)
    again.head, again.records = world.head, world.records
    again.hears_again()
    again.hears(removed(50))
    again.at(200)
    assert world.paper.problems == [] and world.paper.findings() == []


def test_a_failed_publication_is_not_lost_in_the_snapshot() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(0)
    world.hears_unchecked(replace(given_until(100, "odd"), outcome="perhaps"))
    kept = list(world.paper.stored)
    world.paper.deaf = True
    world.hears(given_until(100, "other"))
    world.hears(given_until(100, "third"))
    with pytest.raises(OSError, match="do not answer"):
        world.at(1)
    assert world.paper.stored == kept
    world.paper.deaf = False
    world.hears(given_until(100, "fourth"))
    assert world.paper.stored == kept, "what was said is not known any more: only a start finds it out"


def test_a_fault_is_on_record_before_it_is_passed_over_for_good() -> None:
    world = World()
    world.hears_unchecked(given_until(100), replace(given_until(100, "odd"), outcome="perhaps"))
    assert world.paper.stored and world.paper.findings() == [("finding.opened", "watch_fault")]


def test_a_jump_of_the_brokers_clock_ends_nothing_unjudged() -> None:
    world = World()
    world.hears(grant("request.approved", 0, "q", request_id="q"))
    world.at(1)
    world.hears(given_at(90))
    assert "q" in world.watch.judge.state.requests
    world.at(91 * 86_400)
    world.at(91 * 86_400 + 1)
    world.hears(given_at(91))
    assert "q" not in world.watch.judge.state.requests
    assert World(world.paper).watch.judge.state.requests == {}


def given_at(days: float) -> Event:
    return grant("grant.activated", days * 86_400, expires_at=NOON + timedelta(days=200), expiry_source="native")


def closed(rule: str, key: str, deadline: datetime | None = None, accept: int | None = None) -> Event:
    """Return the event by which a person closes a finding."""
    return Event(
        event_type="finding.closed",
        occurred_at=NOON,
        source=Source("grantledger-operator", "test", f"{rule}:{key}", "finding"),
        subject=Subject(key, "system"),
        actor=Actor("dana", "human"),
        finding=Finding(rule, key, "critical", deadline, accept_index=accept),
    )


def test_a_finding_that_a_person_closed_does_not_open_again() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(120)
    world.paper.said.append(("access.findings", closed("overdue", "g", NOON + timedelta(seconds=100))))
    said = len(world.paper.said)
    again = World(world.paper)
    again.at(130)
    again.head, again.records = world.head, world.records
    again.hears(removed(150))
    again.at(151)
    assert len(world.paper.said) == said, "neither opened nor resolved"


@pytest.mark.parametrize("accept", [0, 1])
def test_the_entry_that_a_person_accepted_counts_from_the_next_start(accept: int) -> None:
    world = World()
    world.hears(given_until(100), replace(given_until(5000), salt=bytes(16)))
    world.at(50)
    [conflict] = [event.finding for _, event in world.paper.said if event.finding]
    assert conflict.rule == "event_conflict"
    world.paper.said.append(("access.findings", closed("event_conflict", conflict.key, accept=accept)))
    again = World(world.paper)
    again.at(200)
    opened = [event.finding.rule for _, event in world.paper.said if event.event_type == "finding.opened"]  # type: ignore[union-attr]
    assert opened == (["event_conflict", "overdue"] if accept == 0 else ["event_conflict"])


def overdue(world: World) -> list[str]:
    found = [event.finding for _, event in world.paper.said if event.event_type == "finding.opened"]
    return [finding.key for finding in found if finding and finding.rule == "overdue"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_new_epoch_is_judged_from_its_first_entry(restarted: bool) -> None:
    world = World()
    world.hears(given_until(100), given_until(100, "h"), given_until(100, "i"))
    world.opens_epoch()
    world.hears(removed(50))
    if restarted:
        again = World(world.paper)
        again.head, again.records = world.head, world.records
        world = again
    world.hears(grant("grant.revoked", 60, "h", removal_evidence="confirmed"), given_until(150, "j"))
    world.at(200)
    assert overdue(world) == ["i", "j"] and world.paper.problems == []


def test_lag_in_a_new_epoch_hides_the_answer_too() -> None:
    world = World()
    world.hears(given_until(100), given_until(1000, "h"))
    world.at(50)
    world.opens_epoch()
    world.hears(given_until(1000, "i"))
    late = world.batch(removed(90))  # in Kafka, not applied: its offset is below those of the epoch before
    world.at(111)
    world.at(112)
    assert overdue(world) == []
    world.take(late)
    world.at(160)
    world.at(161)
    assert overdue(world) == []


@pytest.mark.parametrize("markers", [False, True])
def test_a_topic_that_was_created_again_hides_the_answer_before_its_epoch_is_opened(markers: bool) -> None:
    world = World()
    world.hears(given_until(100), given_until(1000, "h"))
    world.at(50)
    world.paper.only_markers = markers  # of the old topic's offsets, which the new one has not reached
    world.paper.topic_id, world.paper.end_offset = bytes([1]) * 16, 1  # a removal, which no epoch covers yet
    for seconds in (111, 112, 150):
        world.at(seconds)
    assert overdue(world) == []
    world.opens_epoch()
    world.hears(removed(90))
    world.at(160)
    world.at(161)
    assert overdue(world) == []


def test_an_empty_topic_that_was_created_again_keeps_no_finding_back() -> None:
    world = World()
    world.hears(given_until(100))
    world.at(50)
    world.paper.topic_id, world.paper.end_offset = bytes([1]) * 16, 0
    world.at(111)
    assert overdue(world) == ["g"]


def test_entries_of_a_new_epoch_are_named_with_it_and_can_be_accepted() -> None:
    world = World()
    world.hears(given_until(100))
    world.opens_epoch()
    world.hears_unchecked(replace(given_until(100, "odd"), outcome="perhaps"), given_until(5000))
    world.at(50)
    assert faults(world) == [("entry 0 of epoch 1", "InvalidEventError: outcome")]
    [conflict] = [
        event.finding for _, event in world.paper.said if event.finding and event.finding.rule != "watch_fault"
    ]
    world.paper.said.append(("access.findings", closed("event_conflict", conflict.key, accept=1)))
    again = World(world.paper)
    again.at(200)
    assert overdue(again) == []
