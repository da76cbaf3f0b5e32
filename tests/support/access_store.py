"""A store filled with chosen events at chosen times, through the real codec, sealing, decoding and migrations."""

from __future__ import annotations

import atexit
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.base.times import micros_of
from grantledger.ledger.batch import Head, Records, SealedBatch, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis, encode_headers, origin_of
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SourceKeys
from grantledger.ledger.source_signature import SourceSigner
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_access import ask_store, refresh_states
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import (
    LIFECYCLE_TOPIC,
    Action,
    Actor,
    Event,
    EventSource,
    Finding,
    IssuingSource,
    Resource,
    Subject,
)
from grantledger.sinks.clickhouse import Ask, StoreAddress, connect
from grantledger.sinks.evidence import insert_entries, insert_origin
from grantledger.sinks.migrate import migrate
from grantledger.sinks.rows import entries_table

DEPLOYMENT = "test.example"
SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
"""For tests only: this key is public."""


@dataclass(frozen=True)
class Record:
    """One Kafka record: which log, its key and value, its time in ms, whether the broker set that time, its headers."""

    topic: str
    key: bytes
    value: bytes
    time_ms: int
    by_broker: bool = True
    headers: bytes = NO_HEADERS
    partition: int = 0


@dataclass
class Story:
    """Events in the order in which Kafka appended them. Times are minutes from ``now``, negative in the past.

    ``signers``: the keys of the systems that sign.
    """

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    records: list[Record] = field(default_factory=list)
    signers: Mapping[str, LocalSigner] = field(default_factory=dict)

    def at(self, minutes: float) -> datetime:
        return self.now + timedelta(minutes=minutes)

    def add(self, event: Event, taken: float, *, topic: str | None = None, by_broker: bool = True) -> Event:
        """Append an event, at ``taken`` by the broker's clock. The same event may be added again."""
        time_ms = micros_of(self.at(taken)) // 1000
        value, topic, key = EventEncoder().encode(event), topic or event.topic, event.key.encode()
        signer = self.signers.get(event.source.system)
        signed = SourceSigner(DEPLOYMENT, signer).headers(topic, key, value) if signer else []
        self.records.append(Record(topic, key, value, time_ms, by_broker, encode_headers(signed)))
        return event

    def event(self, event_type: str, minutes: float, native_id: str, **fields: Any) -> Event:
        """Return an event at ``minutes`` by its source's clock, with the fields that its type requires."""
        subject = fields.pop("subject", f"user-{fields.get('grant_id', native_id)}")
        system = fields.pop("system", "bot")
        given: dict[str, Any] = {
            "event_type": event_type,
            "occurred_at": self.at(minutes),
            "source": EventSource(system, "eu-1", native_id, "record"),
            "subject": subject if isinstance(subject, Subject) else Subject(subject, "human"),
            "actor": Actor("robot", "service"),
            "outcome": "success",
            "grant_id_kind": "native" if fields.get("grant_id") else None,
        }
        if event_type.startswith(("grant.", "request.")):
            given |= {"resource": Resource("database", "orders", "production"), "entitlement": "rw"}
        return Event(**(given | fields))

    def give(
        self,
        grant: str,
        taken: float,
        ends: float | None,
        *,
        seen: float | None = None,
        again: bool = False,
        **fields: Any,
    ) -> Event:
        """Activate a grant until ``ends``, or extend it with ``again``; ``seen`` is the source's time if it differs."""
        kind = "grant.extended" if again else "grant.activated"
        source = "unknown" if ends is None else "native"
        by_broker = fields.pop("by_broker", True)
        given = {"expires_at": None if ends is None else self.at(ends), "expiry_source": source, "grant_id": grant}
        event = self.event(kind, taken if seen is None else seen, f"{grant}-{len(self.records)}", **(given | fields))
        return self.add(event, taken, by_broker=by_broker)

    def remove(
        self, grant: str, taken: float, evidence: str = "confirmed", *, topic: str | None = None, **fields: Any
    ) -> Event:
        """Remove a grant, with this evidence."""
        kind = "grant.expired" if evidence == "deadline" else "grant.revoked"
        seen = fields.pop("seen", taken)
        given = {"grant_id": grant, "removal_evidence": evidence}
        event = self.event(kind, seen, f"{grant}-{len(self.records)}", **(given | fields))
        return self.add(event, taken, topic=topic)

    def observe(self, grant: str, taken: float, **fields: Any) -> Event:
        """Report that the access of a grant was read back, and exists."""
        event = self.event("grant.observed", taken, f"{grant}-{len(self.records)}", **({"grant_id": grant} | fields))
        return self.add(event, taken)

    def act(self, session: str, taken: float, command: str, **fields: Any) -> Event:
        """Run a command in a session."""
        action = Action(command=command)
        event = self.event(
            "session.command", taken, f"{session}-{len(self.records)}", session_id=session, action=action, **fields
        )
        return self.add(event, taken)

    def find(
        self, rule: str, key: str, taken: float, *, resolved: bool = False, deadline: float | None = None, **fields: Any
    ) -> Event:
        """Open or resolve a finding."""
        topic = fields.pop("topic", None)
        if rule == "overdue":
            fields.setdefault("grant_source", IssuingSource(fields.pop("of", "bot"), "eu-1"))
        finding = Finding(
            rule,
            key,
            fields.pop("severity", "warning"),
            None if deadline is None else self.at(deadline),
            fields.pop("evidence", "{}"),
        )
        kind = "finding.resolved" if resolved else "finding.opened"
        event = self.event(kind, taken, f"{rule}:{key}:{len(self.records)}", finding=finding, **fields)
        return self.add(event, taken, topic=topic)

    def decide(self, kind: str, rule: str, key: str, taken: float, person: str, reason: str, **fields: Any) -> Event:
        """Acknowledge or close a finding, as a person does."""
        finding, actor = Finding(rule, key, "info"), Actor(person, "human")
        native_id = f"{rule}:{key}:{len(self.records)}"
        return self.add(
            self.event(kind, taken, native_id, finding=finding, actor=actor, reason=reason, **fields), taken
        )

    def batch(self) -> SealedBatch:
        """Return all records as one sealed batch of ``access.lifecycle``."""
        size = len(self.records)
        records = Records(
            flags=[1] * size,
            offsets=list(range(size)),
            append_times=[record.time_ms for record in self.records],
            keys=[record.key for record in self.records],
            values=[record.value for record in self.records],
            headers=[record.headers for record in self.records],
        )
        head = Head.at_genesis(Genesis(origin_of(DEPLOYMENT, LIFECYCLE_TOPIC, 0), bytes(range(16)), 0))
        return seal(head, records, size, self.now, SIGNER)[0]


def fill(
    data_dir: Path,
    records: Sequence[Record],
    *,
    cuts: Sequence[int] = (1000,),
    merge: bool = False,
    sources: SourceKeys | None = None,
    onto: Path | None = None,
    states: bool = True,
) -> Path:
    """Make a data folder with a store of these records, and return the store's folder.

    Args:
        cuts: sizes of the sealed batches of a log, repeated as long as needed: each batch is one part of the table.
        merge: merge all parts into one.
        sources: the registered sources.
        onto: a store's folder to copy, which has other logs; an empty store by default.
        states: compute the states of grants, requests and findings.
    """
    folder = data_dir / "clickhouse"
    shutil.copytree(onto or _migrated(), folder, symlinks=True)
    with connect(StoreAddress(folder)) as client:
        client.command("SYSTEM STOP MERGES entries")
        catalog = SchemaCatalog((event_schema(),))
        for topic, partition in sorted({(record.topic, record.partition) for record in records}):
            genesis = Genesis(origin_of(DEPLOYMENT, topic, partition), bytes(range(16)), 0)
            insert_origin(client, genesis)
            here = [record for record in records if (record.topic, record.partition) == (topic, partition)]
            for batch in _sealed(genesis, here, cuts):
                table = entries_table(batch, catalog, sources or SourceKeys(DEPLOYMENT))
                insert_entries(client, table, f"{batch.origin}:{batch.first_index}")
        if merge:
            client.command("SYSTEM START MERGES entries")
            client.command("OPTIMIZE TABLE entries FINAL")
        if states:
            refresh_states(client)
    return folder


@cache
def _migrated() -> Path:
    """Return the folder of an empty store. The migrations take half a second, so this is made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="empty-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with connect(StoreAddress(folder)) as client:
        migrate(client)
    return folder


def _sealed(genesis: Genesis, records: Sequence[Record], cuts: Sequence[int]) -> Iterator[SealedBatch]:
    head, sizes, at = Head.at_genesis(genesis), itertools.cycle(cuts), 0
    while at < len(records):
        part = records[at : at + next(sizes)]
        columns = Records(
            flags=[int(record.by_broker) for record in part],
            offsets=list(range(at, at + len(part))),
            append_times=[record.time_ms for record in part],
            keys=[record.key for record in part],
            values=[record.value for record in part],
            headers=[record.headers for record in part],
        )
        at += len(part)
        set_by_broker = [record.time_ms for record in part if record.by_broker]
        sealed_at = datetime.fromtimestamp((max(set_by_broker, default=0) + 200) / 1000, UTC)
        batch, head = seal(head, columns, at, sealed_at, SIGNER)
        yield batch


def columns_with(text: str, query: Callable[[str], list[dict[str, Any]]]) -> list[str]:
    """Return the columns that contain a text, of all tables. Views are left out: they are computed.

    Args:
        query: returns the rows of a query.
    """
    columns = query(
        "SELECT table, name FROM system.columns WHERE database = 'audit' AND table IN "
        "(SELECT name FROM system.tables WHERE database = 'audit' AND engine NOT LIKE '%View') ORDER BY table, name"
    )
    assert len(columns) > 80
    selects = []
    for table, of_table in itertools.groupby(columns, key=lambda column: str(column["table"])):
        found = (f"countIf(position(toString(`{one['name']}`), '{text}') > 0)" for one in of_table)
        selects.append(f"SELECT '{table}' AS table, [{', '.join(found)}] AS counts FROM {table}")
    counts = {row["table"]: list(row["counts"]) for row in query(" UNION ALL ".join(selects))}
    return [f"{one['table']}.{one['name']}" for one in columns if int(counts[one["table"]].pop(0))]


@contextmanager
def stored(data_dir: Path, records: Sequence[Record], **arguments: Any) -> Iterator[Ask]:
    """Fill a store and open it once for several queries, as readers do. Arguments as for :func:`fill`."""
    fill(data_dir, records, **arguments)
    with ask_store(Settings(data_dir=data_dir)) as ask:
        yield ask


@contextmanager
def opened_elsewhere(data_dir: Path) -> Iterator[None]:
    """Let another process open the store and serve SQL, as ``grantledger run store`` does.

    Commands then run in the test's own process: they send their SQL to the endpoint instead of starting the engine.
    """
    program = (
        "import sys; from pathlib import Path; from grantledger.runtime.store_access import open_store; "
        "from grantledger.runtime.settings import load_settings\n"
        "with open_store(load_settings(Path(sys.argv[1])), read_only=True):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.communicate(timeout=30)
