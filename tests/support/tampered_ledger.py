"""A ledger that real processes created, for tests that change a copy of it.

Each test changes a copy of the stored rows, or of the Kafka records, as an operator with all rights on the database and
the brokers could. The evidence is in the tables ``entries``, ``origins`` and ``anchors``; :mod:`.tamper` explains why
it is not in others.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from grantledger.kafka.identity import identify_topics
from grantledger.kafka.offsets import end_offset
from grantledger.kafka.records import read_range
from grantledger.ledger.anchor import Anchor, anchor_origin
from grantledger.ledger.keys import LocalSigner
from grantledger.producers import Actor, Event, EventSource, Subject
from grantledger.schemas.own_sources import OPERATOR, OWN_SOURCES
from grantledger.schemas.topics import SEALED_TOPICS
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.file_target import read_anchor_file
from support.events import event, produce
from support.pipeline import ANCHORED_OFTEN, WITHOUT_STATES, Pipeline
from support.shared_broker import locked
from support.tamper import TABLES, TamperedStore, replaced, replaced_each
from support.waiting import wait_for

DEPLOYMENT = "tamper.example"
LIFECYCLE = f"{DEPLOYMENT}/access.lifecycle/0/0"
FINDINGS = f"{DEPLOYMENT}/access.findings/0/0"
ANCHORS = anchor_origin(DEPLOYMENT)
ERASED_INDEX = 3
"""The entry of the lifecycle log whose erasure is on record."""


@dataclass
class Ledger:
    """The ledger as its processes left it. They are stopped; the broker still runs."""

    pipeline: Pipeline
    store: TamperedStore
    sealed: dict[str, list[bytes]]
    """The records of every sealed partition, in order, before any test writes to them."""

    @cached_property
    def signer(self) -> LocalSigner:
        """The private key of the logs, for tests in which an attacker has stolen it."""
        return LocalSigner.from_pem((self.pipeline.data_dir / "keys" / "log.pem").read_bytes(), None)

    @property
    def anchor_file(self) -> Path:
        return self.pipeline.data_dir / "anchors.jsonl"

    @cached_property
    def batches(self) -> dict[str, list[tuple[int, int]]]:
        """First and last index of every batch, by origin."""
        found: dict[str, list[tuple[int, int]]] = {}
        for row in self.store.rows("SELECT origin, index FROM entries WHERE note != '' ORDER BY origin, index"):
            known = found.setdefault(row["origin"], [])
            known.append((known[-1][1] + 1 if known else 0, row["index"]))
        return found

    @cached_property
    def types(self) -> dict[str, dict[str, str]]:
        """Column types in the store, by table and column."""
        found: dict[str, dict[str, str]] = {table: {} for table in TABLES}
        for row in self.store.rows("SELECT table, name, type FROM system.columns WHERE database = 'audit'"):
            if row["table"] in found:
                found[row["table"]][row["name"]] = row["type"]
        return found

    def size(self, origin: str = LIFECYCLE) -> int:
        return self.batches[origin][-1][1] + 1

    @cached_property
    def full(self) -> tuple[int, int]:
        """First and last index of a batch of at least seven events, with batches before and after it."""
        return next(batch for batch in reversed(self.batches[LIFECYCLE][1:-2]) if batch[1] - batch[0] >= 6)

    @cached_property
    def single(self) -> int:
        """The entry of a batch with only one entry, with batches before and after it."""
        return next(first for first, last in self.batches[LIFECYCLE][1:-2] if first == last)

    @property
    def middle(self) -> int:
        """An entry inside a batch."""
        return self.full[0] + 4

    @cached_property
    def events(self) -> dict[str, int]:
        """For each log of an access system, an event with approvals and arguments, if possible inside a batch."""
        where = "decode_error = '' AND erased_at IS NULL AND notEmpty(approvals) AND notEmpty(args)"
        found = self._in_each_log("argMax(index, (note = '', index))", where)
        return found | {LIFECYCLE: self.middle}

    @cached_property
    def unreadable(self) -> dict[str, int]:
        """For each log of an access system, the first entry whose value is not an event, if there is one."""
        return self._in_each_log("min(index)", "startsWith(decode_error, 'framing_unknown') AND erased_at IS NULL")

    @property
    def rejected(self) -> int:
        return self.unreadable[LIFECYCLE]

    def _in_each_log(self, which: str, where: str) -> dict[str, int]:
        logs = "match(origin, '/access.(lifecycle|activity)/')"
        found = self.store.rows(
            f"SELECT origin, {which} AS found FROM entries WHERE {logs} AND {where} GROUP BY origin"
        )
        return {row["origin"]: row["found"] for row in found}

    def changed_in_each_log(
        self, places: Mapping[str, int], changes: Iterable[tuple[str, str, str]], read: tuple[int, int] | None = None
    ) -> Iterator[tuple[str, str, str]]:
        """Verify with each of several changes to entries, as many at a time as there are logs.

        A log's verification ends with its first problem, so each log has one change at a time.

        Args:
            places: the entry to change, by log.
            changes: column, value, and the check that fails.
            read: as for :meth:`TamperedStore.verify`.

        Yields:
            Column, value, and the problem's message, which is the only one of its log and in the right place.
        """
        left = deque(changes)
        while left:
            group = {place: left.popleft() for place in places.items() if left}
            changed = [(column, row(index, log), value) for (log, index), (column, value, _) in group.items()]
            report = self.store.verify({"entries": replaced_each("entries", changed)}, read=read)
            expected = {(log, index, check): change for (log, index), (*change, check) in group.items()}
            assert sorted(problems(report)) == sorted(expected), group
            for found, problem in zip(problems(report), report["problems"], strict=True):
                column, value = expected[found]
                yield column, value, problem["message"]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The evidence of the lifecycle log; bytes are in hex."""
        return self.store.rows(
            "SELECT offset, toUnixTimestamp64Milli(append_time) AS time, flags, hex(previous_leaf_hash) AS previous, "
            "hex(leaf_hash) AS leaf, hex(payload_hash) AS payload, hex(key) AS key, hex(value) AS value, "
            "hex(headers) AS headers, note, toUnixTimestamp64Micro(sealed_at) AS sealed_at "
            f"FROM entries WHERE origin = '{LIFECYCLE}' ORDER BY index"
        )

    @cached_property
    def anchors(self) -> list[Anchor]:
        return list(read_anchor_file(self.anchor_file))


def send_alone(pipeline: Pipeline, sent: Event, stored: int) -> None:
    """Send one event and wait until it is stored, so that it is alone in its batch."""
    with pipeline.client() as client:
        client.send(sent)
    pipeline.wait_stored(stored)


def wait_for_anchors(pipeline: Pipeline, count: int) -> None:
    wait_for(lambda: pipeline.metric("anchor", "grantledger_anchors_total") >= count, f"{count} anchors exist")


def make(pipeline: Pipeline) -> None:
    """Create a ledger with several batches, some of one entry, rejected records, and many anchors."""
    pipeline.start()
    answer = pipeline.run("demo", "--traffic-only", "--lives", "12", "--seed", "5")
    assert answer.returncode == 0, answer.stderr
    stored = int(answer.stdout.split()[-3])
    pipeline.wait_stored(stored)
    wait_for_anchors(pipeline, 2)  # these do not cover the entries that follow
    for number in range(3):
        stored += 1
        send_alone(pipeline, event("grant.activated", number), stored)
    garbage = [{"value": b"no event", "key": b"k"}, {"value": None, "key": b"k"}, {"value": b"", "key": None}]
    stored += produce(pipeline.cluster, "access.lifecycle", garbage)
    stored += produce(pipeline.cluster, "access.activity", garbage)
    pipeline.wait_stored(stored)
    with pipeline.client() as client:
        for number in range(10, 30):
            client.send(event("grant.activated", number))
            client.send(event("session.query", number))
    stored += 40
    pipeline.wait_stored(stored)
    for number in range(40, 43):
        stored += 1
        send_alone(pipeline, event("grant.extended", number), stored)
    erased = Event(
        event_type="payload.erased",
        occurred_at=event("grant.activated", 0).occurred_at,
        source=EventSource(OPERATOR, DEPLOYMENT, "erasure-1", "erasure"),
        subject=Subject(f"{LIFECYCLE}#{ERASED_INDEX}", "system"),
        actor=Actor("privacy-officer", "human"),
        reason="GDPR Article 17",
        outcome="success",
    )
    pipeline.publish(erased)
    findings = "topic=access.findings"
    wait_for(
        lambda: any(
            findings in labels and name == "grantledger_stored_log_size_entries" and value >= len(OWN_SOURCES) + 2
            for (name, labels), value in pipeline.children["store"].metrics().items()
        ),
        "the erasure is on record",
    )
    wait_for_anchors(pipeline, 5)
    # The anchor process writes its last anchor when it stops; this one covers everything.
    pipeline.stop("seal", "anchor")
    made = len((pipeline.data_dir / "anchors.jsonl").read_text().splitlines())
    wait_for(lambda: pipeline.metric("store", "grantledger_stored_anchors_total") == made, "all anchors are stored")
    pipeline.stop("store")


def make_once(folder: Path, bootstrap_servers: str) -> tuple[Pipeline, dict[str, list[bytes]]]:
    """Create the ledger, unless another test process has. Return its pipeline and :attr:`Ledger.sealed`."""
    with (folder / "tampered.lock").open("a") as lock, locked(lock):
        # Without states: they would betray some of the changes to entries, and how much of them exists is chance.
        settings = ANCHORED_OFTEN | WITHOUT_STATES
        pipeline = Pipeline(
            bootstrap_servers, folder / "tampered", settings, deployment=DEPLOYMENT, topic_prefix=f"{DEPLOYMENT}-"
        )
        made = folder / "tampered.json"
        if not made.exists():
            try:
                pipeline.make_topics()
                make(pipeline)
            finally:
                pipeline.stop()
            records = {where: [value.hex() for value in values] for where, values in read_sealed(pipeline).items()}
            made.write_text(json.dumps(records), "utf-8")
        stored = json.loads(made.read_text("utf-8"))
        return pipeline, {where: [bytes.fromhex(value) for value in values] for where, values in stored.items()}


def read_sealed(pipeline: Pipeline) -> dict[str, list[bytes]]:
    """Return the records of every sealed partition, in order."""
    cluster = pipeline.cluster
    found = {}
    for topic, identity in identify_topics(cluster, SEALED_TOPICS).items():
        for partition in range(identity.partitions):
            end = end_offset(cluster, topic, partition)
            read = read_range(cluster, topic, partition, 0, end)
            found[f"{topic}/{partition}"] = [message.value() or b"" for message in read]
    return found


def problems(report: dict[str, Any]) -> list[tuple[str, int | None, str]]:
    """Return origin, index and check of each problem in a report."""
    assert report["sound"] is (not report["problems"])
    return [(problem["origin"], problem["index"], problem["check"]) for problem in report["problems"]]


def first_message(report: dict[str, Any]) -> str:
    return str(report["problems"][0]["message"])


def row(index: int, origin: str = LIFECYCLE) -> str:
    return f"(origin = '{origin}' AND index = {index})"


def rows(first: int, last: int, origin: str = LIFECYCLE) -> str:
    return f"(origin = '{origin}' AND index BETWEEN {first} AND {last})"


def without(where: str, table: str = "entries") -> dict[str, str]:
    return {table: f"SELECT * FROM {table} WHERE NOT {where}"}


def with_copy(where: str, **values: str) -> dict[str, str]:
    """Return all entries, and copies of some of them with other values."""
    found = f"(SELECT * FROM entries WHERE {where})"
    again = replaced(found, "true", **values) if values else f"SELECT * FROM {found}"
    return {"entries": f"SELECT * FROM entries UNION ALL {again}"}


def raw(data: bytes, width: int | None = None) -> str:
    text = f"unhex('{data.hex()}')"
    return f"toFixedString({text}, {width})" if width else text


def by_index(values: dict[int, str], otherwise: str) -> str:
    """Return an expression with a different value for each of some indices."""
    cases = ", ".join(f"index = {index}, {value}" for index, value in values.items())
    return f"multiIf({cases}, {otherwise})"


def execute(data_dir: Path, statement: str) -> None:
    """Change the store in a data folder, as an operator with a client can."""
    with connect(StoreAddress(data_dir / "clickhouse")) as client:
        client.command(statement, settings={"mutations_sync": 2})
