"""The whole watch with a list instead of Kafka, its clocks, and the log that it reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from confluent_kafka import Message
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.kafka.sealed_log import SealedBatchVerifier, SealedLogProblem, SealedLogs
from grantledger.ledger import batch as batches
from grantledger.ledger.entry import Genesis, encode_headers
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.ledger.source_keys import SourceKeys
from grantledger.ledger.source_signature import SourceSigner
from grantledger.processors.access import SECOND
from grantledger.processors.watch.app import DeliveredRecord
from grantledger.processors.watch.clock import WatchClock
from grantledger.processors.watch.core.judge import KnownFindings
from grantledger.processors.watch.findings import SYSTEM, Outgoing, identity_from, scoped_key
from grantledger.processors.watch.kafka_findings import KafkaFindings
from grantledger.processors.watch.shard import ONLY_SHARD, Shard
from grantledger.processors.watch.watcher import Watcher
from grantledger.processors.watch_policy import AccessLimits, WatchPolicy
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Actor, Event, EventSource, Resource, Subject
from grantledger.schemas.instance_names import NO_NAMES
from grantledger.schemas.topics import COMMANDS_TOPIC
from support.events import written
from support.snapshot_memory import MemorySnapshots

from .watching import bare

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

    def __init__(self, shard: Shard = ONLY_SHARD) -> None:
        super().__init__()
        self.shard = shard
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
        self.keys = SourceKeys("test")
        self.keys.lifecycle_shards = shard.count
        self.heard = 0
        """How many of the events the watch has read back."""

    def source_keys(self, append_time_ms: int) -> SourceKeys:
        return self.keys

    def take_over(self) -> KnownFindings:
        self.heard = len(self.said)
        return self.known(self.said)

    def decisions(self) -> KnownFindings:
        events, self.heard = self.said[self.heard :], len(self.said)
        return self.known([one for one in events if one[1].event_type == "finding.closed"])

    def known(self, events: Sequence[tuple[str, Event]]) -> KnownFindings:
        known = KnownFindings()
        for _, event in events:
            finding = event.finding
            assert finding is not None
            if event.source.system == SYSTEM:
                identity = identity_from(event.source.native_id, NO_NAMES, self.shard)
                if identity is not None:
                    known.add(event.event_type, identity)
                continue
            deadline = round(finding.deadline.timestamp() * SECOND) if finding.deadline else 0
            issuers = (event.grant_source, event.request_source, event.session_source)
            scope = [name for one in issuers for name in ((one.system, one.instance) if one else ("", ""))]
            about = scoped_key(NO_NAMES, finding.rule, finding.key, event.tenant, *scope, shard=self.shard)
            if about is None:
                continue
            known.add(event.event_type, (finding.rule, about, deadline), finding.accept_index)
        return known

    def append_sealed(self, value: bytes) -> Message:
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
            SealedLogs(Cluster({}), "test", keys, note), LIFECYCLE_TOPIC, self.shard.number, begin=self.begin
        )
        verifier.start_after(reversed(list(self.sealed_records(0, start))))
        self.reads.clear()
        return verifier

    def sealed_end(self) -> int:
        return self.next_record

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


def ids(world: World) -> set[str]:
    """Return the ids of the grants in a watch's state."""
    return {bare(one) for one in world.watch.judge.state.grants}


class World:
    """A watch, its clocks, and the log that it reads."""

    def __init__(self, paper: Paper | None = None, step: float = 0.0, snapshot_every: int = 0) -> None:
        self.paper = paper or Paper()
        self.seconds = 0.0
        self.step = step
        clock = WatchClock(lambda: START + int((self.seconds + self.step) * SECOND), self.boot, self.boot)
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
            shard=self.paper.shard,
        )
        origin = f"test/access.lifecycle/{self.paper.shard.number}/0"
        self.head = batches.Head.at_genesis(Genesis(origin, bytes(16), 0))
        self.records = 0
        self.signer: LocalSigner | None = None
        """Signs the events that it receives."""
        asyncio.run(self.start())

    async def start(self) -> None:
        await self.watch.take_over()
        await self.watch.restore()

    def opens_epoch(self, first_offset: int = 0) -> None:
        """Open a new epoch on a topic that was created again: its entries begin at 0, and usually its offsets."""
        root = self.head.frontier.root()
        epoch = Genesis("test/access.lifecycle/0/1", bytes([1]) * 16, first_offset, self.head.size, root)
        self.head, self.records = batches.Head.at_genesis(epoch), first_offset
        self.paper.topic_id = epoch.topic_id

    def boot(self) -> int:
        return int((1000 + self.seconds) * SECOND)

    def batch(
        self,
        *events: Event,
        change: Callable[[bytes], bytes] = bytes,
        encode: Callable[[Event], bytes] | None = None,
        at: float | None = None,
    ) -> bytes:
        """Seal events, appended when they happened, or all at so many seconds after the start."""
        records = batches.Records()
        encode = encode or EventEncoder().encode
        for event in events:
            records.flags.append(1)
            records.offsets.append(self.records)
            appended = event.occurred_at.timestamp() if at is None else START / SECOND + at
            records.append_times.append(int(appended * 1000))
            key, value = event.key.encode(), change(encode(event))
            records.keys.append(key)
            records.values.append(value)
            signed = SourceSigner("test", self.signer).headers(LIFECYCLE_TOPIC, key, value) if self.signer else []
            records.headers.append(encode_headers(signed))
            self.records += 1
        batch, self.head = batches.seal(self.head, records, self.records, NOON, SIGNER)
        self.paper.end_offset = self.records
        return batches.encode(batch)

    def hears(self, *events: Event) -> None:
        self.take(self.batch(*events))

    def hears_at(self, at: float, *events: Event) -> None:
        """Hear events that the broker appended at so many seconds after the start."""
        self.take(self.batch(*events, at=at))

    def take(self, value: bytes) -> None:
        """Append a record to the sealed topic and deliver it."""
        self.deliver(self.paper.append_sealed(value))

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


def grant(event_type: str, at: float, name: str = "g", **more: Any) -> Event:
    given: dict[str, Any] = {
        "event_type": event_type,
        "occurred_at": NOON + timedelta(seconds=at),
        "source": EventSource("vault", "prod", f"{name}:{event_type}:{at}", "lease"),
        "subject": Subject("alice", "human"),
        "actor": Actor("alice"),
        "resource": Resource("database", f"db-{name}", "production"),
        "entitlement": "rw",
        "grant_id": name,
        "grant_id_kind": "native",
        "outcome": "success",
    }
    return Event(**given | more)


def given_until(ends: float, name: str = "g") -> Event:
    return grant("grant.activated", 0, name, expires_at=NOON + timedelta(seconds=ends), expiry_source="native")


def started(at: float, name: str) -> Event:
    return grant("grant.activated", at, name, expiry_source="unknown")


def removed(at: float) -> Event:
    return grant("grant.revoked", at, removal_evidence="confirmed")


def faults(world: World) -> list[tuple[str, str]]:
    """Return where each reported fault was, and its error."""
    found = [event.finding for _, event in world.paper.said if event.finding and event.finding.rule == "watch_fault"]
    evidence = [(one.key, json.loads(one.evidence)) for one in found]
    return [(one.get("first", key), one["error"]) for key, one in evidence]


def overdue(world: World) -> list[str]:
    found = [event.finding for _, event in world.paper.said if event.event_type == "finding.opened"]
    return [finding.key for finding in found if finding and finding.rule == "overdue"]
