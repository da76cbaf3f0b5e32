"""The verifier detects and locates every change to a stored ledger.

Real processes create one ledger. Each test then changes a copy of the stored rows, or of the Kafka records, as an
operator with all rights on the database and the brokers could.

The evidence is in the tables ``entries``, ``origins`` and ``anchors``; support/tamper.py explains why not in others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

from grantledger.kafka.identity import identify_topics
from grantledger.kafka.offsets import end_offset
from grantledger.kafka.records import read_range
from grantledger.ledger import batch as batches
from grantledger.ledger.anchor import Anchor, anchor_origin, append_anchor, decode_anchor, encode_anchor
from grantledger.ledger.batch import SealedBatch, leaf_at, micros_of
from grantledger.ledger.entry import Genesis, chain, payload_hashes
from grantledger.ledger.keys import LocalSigner, LogKeys, public_pem, read_public_pem
from grantledger.ledger.merkle import Frontier, root_of
from grantledger.ledger.note import BatchFacts, Checkpoint, NoteError, open_sealed_checkpoint, sign_checkpoint
from grantledger.producers import Actor, Event, Source, Subject
from grantledger.schemas.arrow import DECODED_SCHEMA, ERASED
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.evidence import EVIDENCE_SCHEMA
from grantledger.schemas.topics import SEALED_TOPICS
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.file_target import read_anchor_file
from grantledger.verifier.kafka_source import KafkaEvidence, Record
from grantledger.verifier.procedure import verify
from support.events import event, produce, read_datum, written
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.tamper import TABLES, TamperedStore, copied, other_value, replaced
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
    def rejected(self) -> int:
        """The first entry whose value is not an event."""
        where = f"origin = '{LIFECYCLE}' AND decode_error != '' AND erased_at IS NULL"
        return int(self.store.rows(f"SELECT min(index) AS first FROM entries WHERE {where}")[0]["first"])

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
        source=Source("grantledger", DEPLOYMENT, "erasure-1", "erasure"),
        subject=Subject(f"{LIFECYCLE}#{ERASED_INDEX}", "system"),
        actor=Actor("privacy-officer", "human"),
        reason="GDPR Article 17",
        outcome="success",
    )
    produce(pipeline.cluster, "access.findings", [{"value": EventEncoder().encode(erased), "key": b"erasure"}])
    findings = "topic=access.findings"
    wait_for(
        lambda: any(
            findings in labels and name == "grantledger_stored_log_size_entries" and value >= 2
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


@pytest.fixture(scope="module")
def ledger(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    pipeline = make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_DEPLOYMENT": DEPLOYMENT})
    make(pipeline)
    folder = copied(pipeline.data_dir / "clickhouse", tmp_path_factory.mktemp("tampered") / "clickhouse")
    key = read_public_pem((pipeline.data_dir / "keys" / "log.pub").read_bytes())
    with TamperedStore(folder, DEPLOYMENT, key, pipeline.data_dir / "anchors.jsonl") as store:
        yield Ledger(pipeline, store)


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


def test_the_untouched_ledger_is_sound_and_has_every_kind_of_entry(ledger: Ledger) -> None:
    report = ledger.store.verify()
    assert problems(report) == []
    assert report["anchors"] >= 5 and report["outside_anchors"] == report["anchors"] and report["outside_only"] == 0
    assert report["entries"] >= 100 and report["logs"] == 7 and len(ledger.batches[LIFECYCLE]) >= 8
    assert ledger.store.rows("SELECT count() AS c FROM rejected_events")[0]["c"] == 6
    assert ledger.full and ledger.single and ledger.rejected
    assert problems(ledger.store.verify(anchor_file=None)) == []
    assert problems(ledger.store.verify({table: f"SELECT * FROM {table}" for table in TABLES})) == []


class TestEveryColumn:
    """A change to any column of the evidence is detected."""

    ENTRIES: ClassVar = {
        "origin": "index", "index": "index", "offset": "leaf", "append_time": "leaf", "flags": "leaf",
        "previous_leaf_hash": "chain", "leaf_hash": "leaf", "payload_hash": "payload", "key": "payload",
        "value": "payload", "headers": "payload", "sealed_at": "sealed_at", "note": "checkpoint", "erased_at": "erased",
    } | dict.fromkeys(DECODED_SCHEMA.names, "columns")  # fmt: skip
    ORIGINS = ("origin", "topic_id", "first_offset", "previous_size", "previous_root", "genesis_hash")
    ANCHORS = ("origin", "index", "time", "bodies", "entry", "frontier", "note")

    def test_every_column_is_covered(self, ledger: Ledger) -> None:
        assert set(ledger.types["entries"]) == set(self.ENTRIES)
        assert set(ledger.types["entries"]) == {*EVIDENCE_SCHEMA.names, *DECODED_SCHEMA.names}
        assert set(ledger.types["origins"]) == set(self.ORIGINS)
        assert set(ledger.types["anchors"]) == set(self.ANCHORS)

    @pytest.mark.parametrize("column", ENTRIES)
    def test_entries(self, ledger: Ledger, column: str) -> None:
        value = other_value(ledger.types["entries"][column], column)
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.middle), **{column: value})})
        found = problems(report)
        assert (LIFECYCLE, ledger.middle, self.ENTRIES[column]) in found
        assert {origin for origin, _, _ in found} <= {LIFECYCLE, LIFECYCLE[:-1] + "1"}
        if self.ENTRIES[column] == "columns":
            assert f"column {column} " in first_message(report)

    @pytest.mark.parametrize(
        "column",
        ["key", "value", "headers", "payload_hash", "note", "erased_at", "event_type", "occurred_at", "source_seq",
         "approvals", "expires_at", "args", "redacted", "finding_evidence", "raw", "raw_sha256", "decode_error"],
    )  # fmt: skip
    def test_rejected_entries(self, ledger: Ledger, column: str) -> None:
        value = other_value(ledger.types["entries"][column], column)
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.rejected), **{column: value})})
        assert problems(report)[0] == (LIFECYCLE, ledger.rejected, self.ENTRIES[column])

    @pytest.mark.parametrize("column", ["sealed_at", "note"])
    @pytest.mark.parametrize("place", ["first", "last", "single"])
    def test_batch_columns(self, ledger: Ledger, column: str, place: str) -> None:
        first, last = ledger.full
        index = {"first": first, "last": last, "single": ledger.single}[place]
        value = other_value(ledger.types["entries"][column], column)
        report = ledger.store.verify({"entries": replaced("entries", row(index), **{column: value})})
        # The second entry is the first one that differs from the entry before.
        place_named = first + 1 if (column, place) == ("sealed_at", "first") else index
        assert problems(report)[0] == (LIFECYCLE, place_named, self.ENTRIES[column])

    def test_sealing_time_of_a_whole_batch(self, ledger: Ledger) -> None:
        changed = replaced("entries", rows(*ledger.full), sealed_at="addMicroseconds(sealed_at, 1)")
        assert problems(ledger.store.verify({"entries": changed})) == [(LIFECYCLE, ledger.full[1], "sealed_at")]

    @pytest.mark.parametrize("field", ["reviewer", "group", "decision", "at", "reason", "forced"])
    def test_fields_of_an_approval(self, ledger: Ledger, field: str) -> None:
        fields = ("reviewer", "group", "decision", "at", "reason", "forced")
        other = {"at": "addMicroseconds(a.at, 1)", "forced": "NOT a.forced"}
        items = ", ".join(other.get(n, f"concat(a.{n}, 'x')") if n == field else f"a.{n}" for n in fields)
        value = f"arrayMap(a -> CAST(({items}), toTypeName(a)), approvals)"
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.middle), approvals=value)})
        assert problems(report) == [(LIFECYCLE, ledger.middle, "columns")]

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("key", "NULL"), ("value", "NULL"), ("value", "''"), ("headers", "''"), ("expires_at", "NULL"),
            ("source_seq", "NULL"), ("approvals", "[]"), ("args", "[]"), ("flags", "255"), ("flags", "0"),
            ("offset", "18446744073709551615"), ("append_time", "fromUnixTimestamp64Milli(0, 'UTC')"),
            ("raw_sha256", "toFixedString('', 32)"), ("subject_id", "unhex('ff')"), ("note", "unhex('ff')"),
            ("note", "'\\n\\n'"), ("note", "concat('9', repeat('9', 5000), '\\n')"), ("raw", "repeat('x', 1000000)"),
        ],
    )  # fmt: skip
    def test_values_of_another_kind(self, ledger: Ledger, column: str, value: str) -> None:
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.middle), **{column: value})})
        assert problems(report) == [(LIFECYCLE, ledger.middle, self.ENTRIES[column])]

    @pytest.mark.parametrize("column", ["key", "value", "headers"])
    def test_null_replaced_with_empty(self, ledger: Ledger, column: str) -> None:
        """Null and empty have different hashes."""
        name = "key" if column == "key" else "value"
        null = next(at for at, found in enumerate(ledger.rows) if found[name] is None and at != ERASED_INDEX)
        report = ledger.store.verify({"entries": replaced("entries", row(null), **{column: "''"})})
        assert problems(report) == [(LIFECYCLE, null, "payload")]

    @pytest.mark.parametrize("column", ORIGINS)
    def test_origins(self, ledger: Ledger, column: str) -> None:
        value = other_value(ledger.types["origins"][column], column)
        report = ledger.store.verify({"origins": replaced("origins", f"origin = '{LIFECYCLE}'", **{column: value})})
        assert problems(report)[0] in {(LIFECYCLE, None, "genesis"), (LIFECYCLE[:-1] + "1", None, "genesis")}
        assert LIFECYCLE in {origin for origin, _, _ in problems(report)}

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("topic_id", bytes(16)), ("first_offset", 1), ("previous_size", 1), ("previous_root", bytes(31) + b"x"),
        ],
    )  # fmt: skip
    def test_origins_with_a_matching_genesis_hash(self, ledger: Ledger, column: str, value: bytes | int) -> None:
        found = ledger.store.rows(
            "SELECT hex(topic_id) AS topic_id, first_offset, previous_size, hex(previous_root) AS previous_root "
            f"FROM origins WHERE origin = '{LIFECYCLE}'"
        )[0]
        topic_id, root = bytes.fromhex(found.pop("topic_id")), bytes.fromhex(found.pop("previous_root"))
        genesis = replace(Genesis(LIFECYCLE, topic_id, previous_root=root, **found), **{column: value})
        values = {"genesis_hash": raw(genesis.hash(), 32), column: str(value)}
        if isinstance(value, bytes):
            values[column] = raw(value, len(value))
        changed = replaced("origins", f"origin = '{LIFECYCLE}'", **values)
        assert problems(ledger.store.verify({"origins": changed})) == [(LIFECYCLE, 0, "chain")]

    @pytest.mark.parametrize("column", ANCHORS)
    @pytest.mark.parametrize("place", ["middle", "last"])
    def test_anchors(self, ledger: Ledger, column: str, place: str) -> None:
        index = {"middle": len(ledger.anchors) // 2, "last": len(ledger.anchors) - 1}[place]
        value = other_value(ledger.types["anchors"][column], column)
        changed = {"anchors": replaced("anchors", f"index = {index}", **{column: value})}
        for file in (None, ledger.anchor_file):
            origin, where, check = problems(ledger.store.verify(changed, anchor_file=file))[0]
            assert origin == ANCHORS and check in ("anchor", "anchor_index")
            if column != "origin":
                assert where == index

    def test_every_byte_of_a_note(self, ledger: Ledger) -> None:
        """A flipped bit, an added or removed line, and lines in another order are all rejected."""
        first, last = ledger.full
        note = ledger.rows[last]["note"].encode()
        key = ledger.signer.public_key
        leaf = bytes.fromhex(ledger.rows[last]["leaf"])
        assert open_sealed_checkpoint(note.decode(), key, first, leaf)[0].size == last + 1
        body, _, lines = note.decode().partition("\n\n")
        one, two = lines.splitlines(keepends=True)
        witness = f"— witness {one.split()[2]}\n"
        forged = [f"{body}\n\n{text}" for text in (one, two, two + one, lines + witness, lines + one, lines + "\n")]
        for at in range(len(note)):
            for bit in (1, 2, 4, 0x10, 0x80):
                forged.append((note[:at] + bytes([note[at] ^ bit]) + note[at + 1 :]).decode("utf-8", "replace"))
        for text in forged:
            with pytest.raises(NoteError):
                open_sealed_checkpoint(text, key, first, leaf)


class TestRows:
    """Deleted, added and moved rows are detected."""

    def test_deleted_in_the_middle(self, ledger: Ledger) -> None:
        report = ledger.store.verify(without(row(ledger.middle)))
        assert problems(report) == [(LIFECYCLE, ledger.middle, "index")]

    def test_first_deleted(self, ledger: Ledger) -> None:
        assert problems(ledger.store.verify(without(row(0)))) == [(LIFECYCLE, 0, "index")]

    def test_last_deleted(self, ledger: Ledger) -> None:
        """The last batch has one entry, so only anchors can show that it is missing."""
        last = ledger.size() - 1
        assert ledger.batches[LIFECYCLE][-1] == (last, last)
        for file in (None, ledger.anchor_file):
            report = ledger.store.verify(without(row(last)), anchor_file=file)
            assert problems(report) == [(LIFECYCLE, last, "truncated")]

    def test_log_ends_inside_a_batch(self, ledger: Ledger) -> None:
        report = ledger.store.verify(without(rows(ledger.middle, ledger.size())))
        assert problems(report) == [(LIFECYCLE, ledger.full[0], "checkpoint")]

    def test_log_ends_at_a_batch(self, ledger: Ledger) -> None:
        report = ledger.store.verify(without(rows(ledger.full[0], ledger.size())))
        assert problems(report) == [(LIFECYCLE, ledger.full[0], "truncated")]

    def test_log_and_anchors_end_at_a_batch(self, ledger: Ledger) -> None:
        """Only the anchors outside show that entries are missing."""
        first = ledger.full[0]
        # The first anchors may be older than the first checkpoint of this log.
        sizes = [{c.origin: c.size for c in anchor.checkpoints()}.get(LIFECYCLE, 0) for anchor in ledger.anchors]
        kept = sum(size <= first for size in sizes)
        assert 0 < kept < len(sizes)
        cut = without(rows(first, ledger.size())) | without(f"index >= {kept}", "anchors")
        assert problems(ledger.store.verify(cut, anchor_file=None)) == []
        assert problems(ledger.store.verify(cut)) == [(LIFECYCLE, first, "truncated")]

    def test_a_whole_log_deleted(self, ledger: Ledger) -> None:
        gone = without(f"origin = '{LIFECYCLE}'")
        assert (LIFECYCLE, 0, "truncated") in problems(ledger.store.verify(gone))
        gone |= without(f"origin = '{LIFECYCLE}'", "origins")
        for file in (None, ledger.anchor_file):
            assert problems(ledger.store.verify(gone, anchor_file=file)) == [(LIFECYCLE, 0, "truncated")]

    def test_everything_deleted(self, ledger: Ledger) -> None:
        gone = {table: f"SELECT * FROM {table} WHERE false" for table in TABLES}
        found = problems(ledger.store.verify(gone))
        assert len(found) == 1 and found[0][1:] == (0, "truncated")

    @pytest.mark.parametrize("which", ["middle", "first", "last"])
    def test_duplicate(self, ledger: Ledger, which: str) -> None:
        index = {"middle": ledger.middle, "first": 0, "last": ledger.size() - 1}[which]
        assert problems(ledger.store.verify(with_copy(row(index)))) == [(LIFECYCLE, index, "index")]

    def test_duplicate_with_other_content(self, ledger: Ledger) -> None:
        report = ledger.store.verify(with_copy(row(ledger.middle), subject_id="'mallory'"))
        assert problems(report) == [(LIFECYCLE, ledger.middle, "index")]

    @pytest.mark.parametrize("distance", [0, 1, 5, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
    def test_added_at_the_end(self, ledger: Ledger, distance: int) -> None:
        """Directly after the last entry, or so far away that checking every index in between would take forever."""
        size = ledger.size()
        index = min(size + distance, (1 << 64) - 1)
        report = ledger.store.verify(with_copy(row(size - 1), index=f"toUInt64({index})"))
        assert problems(report) == [(LIFECYCLE, size, "leaf" if distance == 0 else "index")]

    def test_added_entry_that_continues_the_chain(self, ledger: Ledger) -> None:
        size, last = ledger.size(), ledger.rows[-1]
        leaf = chain(
            bytes.fromhex(last["leaf"]), [1], [last["offset"] + 1], [last["time"]], [bytes.fromhex(last["payload"])]
        )[0]
        values = {
            "index": str(size),
            "offset": "offset + 1",
            "previous_leaf_hash": "leaf_hash",
            "leaf_hash": raw(leaf, 32),
        }
        report = ledger.store.verify(with_copy(row(size - 1), note="''", **values))
        assert problems(report) == [(LIFECYCLE, size, "checkpoint")]
        report = ledger.store.verify(with_copy(row(size - 1), **values))
        assert problems(report) == [(LIFECYCLE, size, "checkpoint")]

    @pytest.mark.parametrize("origin", [f"{DEPLOYMENT}/access.lifecycle/0/1", "other.example/a/0/0", "", "\\xff\\xfe"])
    def test_added_to_an_unknown_log(self, ledger: Ledger, origin: str) -> None:
        report = ledger.store.verify(with_copy(row(0), origin=f"'{origin}'"))
        name = "��" if "x" in origin and "\\" in origin else origin
        assert problems(report) == [(name, 0, "origin")]

    @pytest.mark.parametrize(
        "origin",
        ["other.example/access.lifecycle/0/0", "", "'a' || repeat('x', 300)", f"{LIFECYCLE[:-1]}²", f"{LIFECYCLE}1"],
    )
    def test_added_log(self, ledger: Ledger, origin: str) -> None:
        name = origin if "'" in origin else f"'{origin}'"
        added = f"SELECT * FROM origins UNION ALL SELECT * REPLACE ({name} AS origin) FROM origins LIMIT 1 BY origin"
        report = ledger.store.verify({"origins": added})
        assert not report["sound"] and {check for _, _, check in problems(report)} <= {"origin", "genesis"}

    def test_two_indices_swapped(self, ledger: Ledger) -> None:
        a, b = ledger.middle, ledger.middle + 2
        swapped = replaced("entries", rows(a, b), index=f"multiIf(index = {a}, {b}, index = {b}, {a}, index)")
        assert problems(ledger.store.verify({"entries": swapped})) == [(LIFECYCLE, a, "leaf")]

    @pytest.mark.parametrize("columns", ["payload", "all but the chain", "decoded"])
    def test_two_contents_swapped(self, ledger: Ledger, columns: str) -> None:
        a, b = ledger.middle, ledger.middle + 2
        payload = ["key", "value", "headers"]
        names = {
            "payload": payload,
            "all but the chain": [*payload, "payload_hash", "append_time", "offset", *DECODED_SCHEMA.names],
            "decoded": DECODED_SCHEMA.names,
        }[columns]
        joined = ", ".join(f"`{name}`" for name in names)
        taken = f"SELECT index AS place, {joined} FROM entries WHERE {row(a)} OR {row(b)}"
        items = ", ".join(f"if(o.place != 0, o.`{name}`, e.`{name}`) AS `{name}`" for name in names)
        swapped = (
            f"SELECT e.* REPLACE ({items}) FROM entries AS e LEFT JOIN ({taken}) AS o "
            f"ON o.place = if(e.origin = '{LIFECYCLE}' AND e.index IN ({a}, {b}), {a + b} - e.index, 0)"
        )
        check = {"payload": "payload", "all but the chain": "leaf", "decoded": "columns"}[columns]
        assert problems(ledger.store.verify({"entries": swapped})) == [(LIFECYCLE, a, check)]


@dataclass
class Forgery:
    """One payload replaced, and every hash after it recomputed as the sealer does."""

    ledger: Ledger
    index: int
    value: bytes
    payload: bytes
    leaves: list[bytes]
    """All leaf hashes of the forged log."""

    @classmethod
    def of(cls, ledger: Ledger, index: int) -> Forgery:
        stored = ledger.rows
        schema = event_schema()
        datum = read_datum(bytes.fromhex(stored[index]["value"])) | {"reason": "nothing to see here"}
        value = written(datum, schema.definition, schema.prefix)
        [payload] = payload_hashes(
            [bytes.fromhex(stored[index]["key"])], [value], [bytes.fromhex(stored[index]["headers"])]
        )
        run = stored[index:]
        new = chain(
            bytes.fromhex(run[0]["previous"]),
            [found["flags"] for found in run],
            [found["offset"] for found in run],
            [found["time"] for found in run],
            [payload, *(bytes.fromhex(found["payload"]) for found in run[1:])],
        )
        return cls(ledger, index, value, payload, [bytes.fromhex(found["leaf"]) for found in stored[:index]] + new)

    def root(self, size: int) -> bytes:
        return root_of(self.leaves[:size])

    def entries(self, last: int | None = None, signer: LocalSigner | None = None) -> dict[str, str]:
        """Return the change.

        Args:
            last: the last entry whose hashes are recomputed; None for all.
            signer: if given, signs the checkpoints again.
        """
        end = len(self.leaves) if last is None else last + 1
        leaves = {at: raw(self.leaves[at], 32) for at in range(self.index, end)}
        values = {
            "value": f"if(index = {self.index}, {raw(self.value)}, value)",
            "reason": f"if(index = {self.index}, 'nothing to see here', reason)",
            "payload_hash": f"if(index = {self.index}, {raw(self.payload, 32)}, payload_hash)",
            "leaf_hash": by_index(leaves, "leaf_hash"),
        }
        if end > self.index + 1:
            previous = {at + 1: leaf for at, leaf in leaves.items() if at + 1 < end}
            values["previous_leaf_hash"] = by_index(previous, "previous_leaf_hash")
        if signer is not None:
            values["note"] = by_index(self._notes(signer), "note")
        return {"entries": replaced("entries", f"origin = '{LIFECYCLE}'", **values)}

    def _notes(self, signer: LocalSigner) -> dict[int, str]:
        notes = {}
        for first, last in self.ledger.batches[LIFECYCLE]:
            if last >= self.index:
                checkpoint = Checkpoint(LIFECYCLE, last + 1, self.root(last + 1))
                row = self.ledger.rows[last]
                facts = BatchFacts(row["sealed_at"], first, row["offset"] + 1, self.leaves[last])
                note = sign_checkpoint(checkpoint, signer, facts)
                notes[last] = raw(note.encode())
        return notes

    def anchors(self, signer: LocalSigner) -> list[Anchor]:
        """Return all anchors, recomputed over the forged log."""
        frontier, made = Frontier(), []
        for anchor in self.ledger.anchors:
            heads = [
                replace(head, root=self.root(head.size)) if head.origin == LIFECYCLE else head
                for head in anchor.checkpoints()
            ]
            new, frontier = append_anchor(frontier, DEPLOYMENT, anchor.time_ms, heads, signer)
            made.append(new)
        return made


def anchor_rows(anchors: list[Anchor]) -> dict[str, str]:
    """Replace the stored anchors."""
    columns: dict[str, Callable[[Anchor], str]] = {
        "bodies": lambda anchor: "[" + ", ".join(raw(body.encode()) for body in anchor.bodies) + "]",
        "entry": lambda anchor: raw(anchor.entry),
        "frontier": lambda anchor: raw(anchor.frontier),
        "note": lambda anchor: raw(anchor.note.encode()),
    }
    values = {name: by_index({anchor.index: of(anchor) for anchor in anchors}, name) for name, of in columns.items()}
    return {"anchors": replaced("anchors", "true", **values)}


class TestForgery:
    """Changes by an attacker who recomputes the hashes."""

    def test_one_entry_recomputed(self, ledger: Ledger) -> None:
        changed = Forgery.of(ledger, ledger.middle).entries(ledger.middle)
        assert problems(ledger.store.verify(changed)) == [(LIFECYCLE, ledger.middle + 1, "leaf")]

    def test_chain_recomputed_to_the_end(self, ledger: Ledger) -> None:
        changed = Forgery.of(ledger, ledger.middle).entries()
        assert problems(ledger.store.verify(changed)) == [(LIFECYCLE, ledger.full[1], "checkpoint")]

    def test_signed_with_another_key(self, ledger: Ledger) -> None:
        changed = Forgery.of(ledger, ledger.middle).entries(signer=LocalSigner.generate())
        assert problems(ledger.store.verify(changed)) == [(LIFECYCLE, ledger.full[1], "checkpoint")]

    def test_signed_with_the_stolen_key(self, ledger: Ledger) -> None:
        changed = Forgery.of(ledger, ledger.middle).entries(signer=ledger.signer)
        ((origin, index, check),) = problems(ledger.store.verify(changed, anchor_file=None))
        assert (origin, check) == (LIFECYCLE, "anchored_head")
        assert index is not None and index >= ledger.full[1]

    def test_signed_with_the_stolen_key_anchors_included(self, ledger: Ledger) -> None:
        """The stored evidence is consistent; only the anchors outside contradict it."""
        forgery = Forgery.of(ledger, ledger.middle)
        made = forgery.anchors(ledger.signer)
        changed = forgery.entries(signer=ledger.signer) | anchor_rows(made)
        assert problems(ledger.store.verify(changed, anchor_file=None)) == []
        first = next(new.index for new, old in zip(made, ledger.anchors, strict=True) if new != old)
        assert problems(ledger.store.verify(changed)) == [(ANCHORS, first, "outside_anchor")]

    def test_changed_registration_of_a_schema(self, ledger: Ledger) -> None:
        """A changed schema is one problem, not one per entry that was written with it."""
        for change in ({"value": "concat(value, 'x')"}, {"key": "'x'"}, {"event_type": "''"}, {"value": "NULL"}):
            report = ledger.store.verify({"entries": replaced("entries", row(0, FINDINGS), **change)})
            assert [(origin, index) for origin, index, _ in problems(report)] == [(FINDINGS, 0)]

    def test_added_registration_of_a_schema(self, ledger: Ledger) -> None:
        added = with_copy(row(0, FINDINGS), origin=f"'{FINDINGS[:-1]}1'", value="concat(value, 'x')")
        assert problems(ledger.store.verify(added)) == [(FINDINGS[:-1] + "1", 0, "origin")]


class TestHiding:
    """An event cannot be hidden from the views or smuggled into them."""

    @pytest.mark.parametrize("columns", ["decode_error", "all"])
    def test_event_hidden(self, ledger: Ledger, columns: str) -> None:
        """Marked as unreadable, the event would not appear in the view ``events``."""
        values = {"decode_error": "'datum_invalid: EOFError'"}
        if columns == "all":
            values |= {name: f"defaultValueOfArgumentType(`{name}`)" for name in DECODED_SCHEMA.names[:-1]}
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.middle), **values)})
        assert problems(report) == [(LIFECYCLE, ledger.middle, "columns")]

    def test_rejected_record_shown_as_event(self, ledger: Ledger) -> None:
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.rejected), decode_error="''")})
        assert problems(report) == [(LIFECYCLE, ledger.rejected, "columns")]
        assert "column decode_error " in first_message(report)


class TestErasure:
    """A payload may be missing if its erasure is on record, and nothing may take its place."""

    GONE: ClassVar = {
        "key": "NULL", "value": "NULL", "headers": "''", "erased_at": "now64(6)", "decode_error": f"'{ERASED}'",
    } | {name: f"defaultValueOfArgumentType(`{name}`)" for name in DECODED_SCHEMA.names[:-1]}  # fmt: skip

    def test_on_record(self, ledger: Ledger) -> None:
        gone = {"entries": replaced("entries", row(ERASED_INDEX), **self.GONE)}
        assert problems(ledger.store.verify(gone)) == []

    def test_marked_as_erased_with_its_payload(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """An erasure that did not happen must not be reported as done. Kafka still has the payload."""
        decoded = map(batches.decode, sealed["access.lifecycle.sealed/0"])
        batch = next(found for found in decoded if found.size > ERASED_INDEX)
        value = batch.records().values[ERASED_INDEX - batch.first_index]
        assert value is not None
        marked = {"entries": replaced("entries", row(ERASED_INDEX), value=raw(value))}
        assert problems(ledger.store.verify(marked)) == [(LIFECYCLE, ERASED_INDEX, "erased")]

    def test_not_on_record(self, ledger: Ledger) -> None:
        gone = {"entries": replaced("entries", row(ERASED_INDEX + 1), **self.GONE)}
        assert problems(ledger.store.verify(gone)) == [(LIFECYCLE, ERASED_INDEX + 1, "erased")]
        gone = {"entries": replaced("entries", row(ERASED_INDEX, FINDINGS), **self.GONE)}

    @pytest.mark.parametrize(
        ("column", "value", "check"),
        [
            ("value", "'forged'", "erased"), ("key", "'forged'", "erased"), ("headers", "'forged'", "erased"),
            ("subject_id", "'mallory'", "columns"), ("decode_error", "''", "columns"), ("erased_at", "NULL", "payload"),
            ("decode_error", "'forged'", "columns"),
        ],
    )  # fmt: skip
    def test_replaced_instead_of_erased(self, ledger: Ledger, column: str, value: str, check: str) -> None:
        forged = {"entries": replaced("entries", row(ERASED_INDEX), **(self.GONE | {column: value}))}
        assert problems(ledger.store.verify(forged)) == [(LIFECYCLE, ERASED_INDEX, check)]

    def test_record_that_records_its_own_erasure(self, ledger: Ledger) -> None:
        """An erased record cannot be checked, so it cannot be the record of an erasure, least of all of its own."""
        itself = {"erased_at": "now64(6)", "event_type": "'payload.erased'", "subject_id": f"'{FINDINGS}#0'"}
        report = ledger.store.verify({"entries": replaced("entries", row(0, FINDINGS), **itself)})
        assert problems(report) == [(FINDINGS, 0, "erased")]

    def test_forged_record_of_an_erasure(self, ledger: Ledger) -> None:
        other = replaced("entries", row(1, FINDINGS), subject_id=f"'{LIFECYCLE}#{ledger.middle}'")
        found = problems(ledger.store.verify({"entries": other}))
        assert sorted(found) == [(FINDINGS, 1, "columns"), (LIFECYCLE, ERASED_INDEX, "erased")]


class TestNotes:
    """A moved, copied or removed checkpoint is detected."""

    def test_moved(self, ledger: Ledger) -> None:
        first, last = ledger.full
        note = raw(ledger.rows[last]["note"].encode())
        for to in (first, last - 1):
            moved = replaced("entries", rows(first, last), note=f"if(index = {to}, {note}, '')")
            assert problems(ledger.store.verify({"entries": moved})) == [(LIFECYCLE, to, "checkpoint")]

    def test_copied_to_another_row(self, ledger: Ledger) -> None:
        note = raw(ledger.rows[ledger.full[1]]["note"].encode())
        doubled = replaced("entries", row(ledger.middle), note=note)
        assert problems(ledger.store.verify({"entries": doubled})) == [(LIFECYCLE, ledger.middle, "checkpoint")]

    @pytest.mark.parametrize("origin", [LIFECYCLE, FINDINGS])
    def test_note_of_another_batch(self, ledger: Ledger, origin: str) -> None:
        note = f"(SELECT note FROM entries WHERE origin = '{origin}' AND note != '' ORDER BY index LIMIT 1)"
        changed = replaced("entries", row(ledger.full[1]), note=f"ifNull({note}, '')")
        assert problems(ledger.store.verify({"entries": changed})) == [(LIFECYCLE, ledger.full[1], "checkpoint")]

    def test_removed(self, ledger: Ledger) -> None:
        changed = replaced("entries", row(ledger.full[1]), note="''")
        assert problems(ledger.store.verify({"entries": changed})) == [(LIFECYCLE, ledger.full[1] + 1, "sealed_at")]
        changed = replaced("entries", row(ledger.size() - 1), note="''")
        assert problems(ledger.store.verify({"entries": changed})) == [(LIFECYCLE, ledger.size() - 1, "checkpoint")]

    def test_two_batches_merged(self, ledger: Ledger) -> None:
        """Without the checkpoint between them, the first batch appears to be sealed with the second."""
        here = ledger.batches[LIFECYCLE].index(ledger.full)
        following = ledger.batches[LIFECYCLE][here + 1]
        time = f"fromUnixTimestamp64Micro({ledger.rows[following[1]]['sealed_at']}, 'UTC')"
        changed = replaced("entries", rows(*ledger.full), note="''", sealed_at=time)
        report = ledger.store.verify({"entries": changed}, anchor_file=None)
        assert problems(report) == [(LIFECYCLE, following[1], "checkpoint")]


class TestOriginsAndAnchors:
    def test_row_of_a_log_deleted(self, ledger: Ledger) -> None:
        report = ledger.store.verify(without(f"origin = '{LIFECYCLE}'", "origins"))
        assert problems(report)[0] == (LIFECYCLE, 0, "origin")

    def test_row_of_a_log_duplicated(self, ledger: Ledger) -> None:
        doubled = f"SELECT * FROM origins UNION ALL SELECT * FROM origins WHERE origin = '{LIFECYCLE}'"
        assert problems(ledger.store.verify({"origins": doubled})) == [(LIFECYCLE, None, "genesis")]

    @pytest.mark.parametrize("place", ["first", "middle"])
    def test_anchor_deleted(self, ledger: Ledger, place: str) -> None:
        index = 0 if place == "first" else len(ledger.anchors) // 2
        report = ledger.store.verify(without(f"index = {index}", "anchors"))
        assert problems(report) == [(ANCHORS, index, "anchor_index")]

    @pytest.mark.parametrize("left", [0, 1, -1])
    def test_last_anchors_deleted(self, ledger: Ledger, left: int) -> None:
        """A store receives anchors last, so missing ones are no problem while the entries that they cover are here.

        The report counts them, and the covered entries cannot be deleted with them.
        """
        kept = left % len(ledger.anchors)
        cut = without(f"index >= {kept}", "anchors")
        report = ledger.store.verify(cut)
        assert problems(report) == []
        assert report["outside_only"] == len(ledger.anchors) - kept
        last = ledger.size() - 1
        assert problems(ledger.store.verify(cut | without(row(last)))) == [(LIFECYCLE, last, "truncated")]

    def test_anchor_duplicated(self, ledger: Ledger) -> None:
        doubled = "SELECT * FROM anchors UNION ALL SELECT * FROM anchors WHERE index = 1"
        assert problems(ledger.store.verify({"anchors": doubled})) == [(ANCHORS, 1, "anchor_index")]

    @pytest.mark.parametrize("with_index", [True, False])
    def test_two_anchors_swapped(self, ledger: Ledger, with_index: bool) -> None:
        swapped = replaced("anchors", "index IN (1, 2)", index="3 - index")
        if not with_index:  # only the entries: with times and bodies too, they would be the same anchors
            parts = [raw(anchor.entry) for anchor in ledger.anchors[1:3]]
            swapped = replaced("anchors", "index IN (1, 2)", entry=f"if(index = 1, {parts[1]}, {parts[0]})")
        assert problems(ledger.store.verify({"anchors": swapped}))[0] == (ANCHORS, 1, "anchor")

    def test_anchors_of_another_log_added(self, ledger: Ledger) -> None:
        added = "SELECT * FROM anchors UNION ALL SELECT * REPLACE ('a.example/anchors/0/0' AS origin) FROM anchors"
        assert problems(ledger.store.verify({"anchors": added})) == [(ANCHORS, 0, "anchor")]

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"note": "x"}, "outside_anchor"), ({"bodies": ["x"]}, "outside_anchor"),
            ({"frontier": "00" * 32}, "outside_anchor"), ({"time_ms": 1}, "outside_anchor"),
            ({"origin": "other.example/anchors/0/0"}, "outside_anchor"), ({"index": 9_999}, "outside_anchor"),
        ],
    )  # fmt: skip
    def test_changed_file_of_outside_anchors(
        self, ledger: Ledger, tmp_path: Path, change: dict[str, Any], problem: str
    ) -> None:
        """A verifier that receives a changed file does not report a sound ledger."""
        lines = [json.loads(line) for line in ledger.anchor_file.read_text().splitlines()]
        lines[1] |= change
        file = tmp_path / "anchors.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert [check for _, _, check in problems(ledger.store.verify(anchor_file=file))] == [problem]


class TestKey:
    def test_another_public_key(self, ledger: Ledger) -> None:
        report = ledger.store.verify(public_key=LocalSigner.generate().public_key)
        found = problems(report)
        assert {(origin, check) for origin, _, check in found} >= {(LIFECYCLE, "checkpoint"), (ANCHORS, "anchor")}


def execute(data_dir: Path, statement: str) -> None:
    """Change the store in a data folder, as an operator with a client can."""
    with connect(StoreAddress(data_dir / "clickhouse")) as client:
        client.command(statement, settings={"mutations_sync": 2})


class TestCommandLine:
    """``grantledger verify`` on a data folder: exit codes and the JSON report."""

    def verify(self, ledger: Ledger, folder: Path, *arguments: str) -> tuple[int, str]:
        environment = ledger.pipeline.environment | {"GRANTLEDGER_DATA_DIR": str(folder)}
        broken = Pipeline(ledger.pipeline.bootstrap_servers, folder, environment)
        broken.environment["GRANTLEDGER_DATA_DIR"] = str(folder)
        answer = broken.run("verify", "-o", "json", *arguments)
        return answer.returncode, answer.stdout

    @pytest.fixture
    def folder(self, ledger: Ledger, tmp_path: Path) -> Path:
        folder = tmp_path / "data"
        for name in ("clickhouse", "keys"):
            copied(ledger.pipeline.data_dir / name, folder / name)
        (folder / "anchors.jsonl").write_bytes(ledger.anchor_file.read_bytes())
        return folder

    def test_sound(self, ledger: Ledger, folder: Path) -> None:
        code, printed = self.verify(ledger, folder)
        assert code == 0 and json.loads(printed)["sound"] is True

    def test_without_a_key(self, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.pub"
        other.write_bytes(public_pem(LocalSigner.generate().public_key))
        code, printed = self.verify(ledger, folder, "--public-key", str(other))
        assert code == 1 and not json.loads(printed)["sound"]
        (folder / "keys" / "log.pub").unlink()
        assert self.verify(ledger, folder) == (2, "")
        other.write_text("no key")
        assert self.verify(ledger, folder, "--public-key", str(other)) == (2, "")

    def test_without_a_store(self, ledger: Ledger, folder: Path, tmp_path: Path) -> None:
        (folder / "clickhouse").rename(tmp_path / "away")
        assert self.verify(ledger, folder) == (2, "")

    def test_without_the_anchors_named(self, ledger: Ledger, folder: Path) -> None:
        assert self.verify(ledger, folder, "--anchors", str(folder / "none.jsonl")) == (2, "")

    @pytest.mark.parametrize(
        ("statement", "check"),
        [
            ("ALTER TABLE entries UPDATE subject_id = 'mallory' WHERE {row}", "columns"),
            ("DELETE FROM entries WHERE {row}", "index"),
            ("INSERT INTO entries SELECT * FROM entries WHERE {row}", "index"),
        ],
    )
    def test_changed_by_sql(self, ledger: Ledger, folder: Path, statement: str, check: str) -> None:
        """An operator with a client and all rights changes the store."""
        execute(folder, statement.format(row=row(ledger.middle)))
        code, printed = self.verify(ledger, folder)
        assert code == 1
        assert problems(json.loads(printed)) == [(LIFECYCLE, ledger.middle, check)]

    @pytest.mark.parametrize(
        ("statement", "origin"),
        [
            ("ALTER TABLE entries MODIFY COLUMN leaf_hash String", f"{DEPLOYMENT}/access.activity/0/0"),
            ("ALTER TABLE origins MODIFY COLUMN topic_id String", DEPLOYMENT),
            ("ALTER TABLE anchors MODIFY COLUMN time DateTime64(6, 'UTC')", ANCHORS),
        ],
    )
    def test_a_column_of_another_type(self, ledger: Ledger, folder: Path, statement: str, origin: str) -> None:
        """The report names it; the command does not fail."""
        execute(folder, statement)
        code, printed = self.verify(ledger, folder)
        found = [where for where, _, check in problems(json.loads(printed)) if check == "format"]
        assert code == 1 and origin in found

    def test_missing_end_that_may_not_be_stored_yet(self, ledger: Ledger, folder: Path) -> None:
        """The report is still TAMPERED and explains what to check."""
        execute(folder, f"DELETE FROM entries WHERE {rows(ledger.full[0], ledger.size())}")
        environment = ledger.pipeline.environment | {"GRANTLEDGER_DATA_DIR": str(folder)}
        answer = Pipeline(ledger.pipeline.bootstrap_servers, folder, environment).run("verify")
        assert answer.returncode == 1 and "TAMPERED" in answer.stdout
        assert f"{LIFECYCLE} index {ledger.full[0]}: truncated" in answer.stdout
        assert "not stored yet" in answer.stdout and "verify --from kafka" in answer.stdout


@pytest.fixture(scope="module")
def sealed(ledger: Ledger) -> dict[str, list[bytes]]:
    """The records of every sealed partition, in order, before any test writes to them."""
    cluster = ledger.pipeline.cluster
    found = {}
    for topic, identity in identify_topics(cluster, SEALED_TOPICS).items():
        for partition in range(identity.partitions):
            end = end_offset(cluster, topic, partition)
            read = read_range(cluster, topic, partition, 0, end)
            found[f"{topic}/{partition}"] = [message.value() or b"" for message in read]
    return found


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


class TestKafka:
    """The sealed topics and the anchors, in the hands of somebody who may write there."""

    LOG: ClassVar = "access.lifecycle.sealed/0"

    def verify(
        self, ledger: Ledger, sealed: dict[str, list[bytes]], anchors: list[bytes] | None = None
    ) -> dict[str, Any]:
        if anchors is None:
            anchors = [encode_anchor(anchor) for anchor in ledger.anchors]
        evidence = KafkaEvidence(
            DEPLOYMENT,
            [
                Record(topic, int(partition), at, value)
                for where, values in sealed.items()
                for topic, _, partition in [where.partition("/")]
                for at, value in enumerate(values)
            ],
            [Record("access.anchors", 0, at, value) for at, value in enumerate(anchors)],
        )
        return verify(evidence, LogKeys.single(ledger.signer.public_key), outside=ledger.anchors).as_json()

    def at(self, sealed: dict[str, list[bytes]], first: int) -> int:
        """Which record of the lifecycle log is the batch that begins at an index."""
        return next(
            at
            for at, value in enumerate(sealed[self.LOG])
            if (batch := batches.decode(value)).first_index == first and batch.count
        )

    def test_untouched(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        report = self.verify(ledger, sealed)
        assert problems(report) == []
        assert report["entries"] == ledger.store.verify()["entries"]

    FIELDS: ClassVar[dict[str, Callable[[SealedBatch], Any]]] = {
        "genesis": lambda batch: replace(batch.genesis, first_offset=99),
        "first_index": lambda batch: batch.first_index + 1,
        "count": lambda batch: batch.count - 1,
        "next_offset": lambda batch: batch.next_offset + 1,
        "sealed_at": lambda batch: batch.sealed_at + timedelta(microseconds=1),
        "note": lambda batch: batch.note.replace("\n\n", "\n\n— witness AAAAAAAA\n"),
    } | {
        name: lambda batch, name=name: flipped(getattr(batch, name))
        for name in (
            "previous_leaf_hash", "flags", "offsets", "append_times", "key_lengths", "keys", "value_lengths", "values",
            "header_lengths", "headers", "payload_hashes", "leaf_hashes", "frontier",
        )
    }  # fmt: skip

    def test_no_field_is_left_out(self) -> None:
        assert {field.name for field in fields(SealedBatch)} == set(self.FIELDS)

    @pytest.mark.parametrize("field", FIELDS)
    def test_a_field_of_a_batch(self, ledger: Ledger, sealed: dict[str, list[bytes]], field: str) -> None:
        at = self.at(sealed, ledger.full[0])
        values = list(sealed[self.LOG])
        batch = batches.decode(values[at])
        values[at] = batches.encode(replace(batch, **{field: self.FIELDS[field](batch)}))
        origin, index, check = problems(self.verify(ledger, sealed | {self.LOG: values}))[0]
        assert origin in (LIFECYCLE, f"{self.LOG} offset {at}")
        if origin == LIFECYCLE:
            assert index is not None and ledger.full[0] <= index <= ledger.full[1]
        else:
            assert index is None and check in ("batch", "checkpoint", "sealed_at")

    @pytest.mark.parametrize("change", ["removed", "doubled", "swapped", "cut off", "garbage", "signed anew"])
    def test_a_whole_batch(self, ledger: Ledger, sealed: dict[str, list[bytes]], change: str) -> None:
        at = self.at(sealed, ledger.full[0])
        values = list(sealed[self.LOG])
        batch = batches.decode(values[at])
        checkpoint = Checkpoint.parse(batch.note.split("\n\n")[0] + "\n")
        facts = BatchFacts(micros_of(batch.sealed_at), batch.first_index, batch.next_offset, batch.last_leaf)
        note = sign_checkpoint(checkpoint, LocalSigner.generate(), facts)
        expected: tuple[str, int | None, str] = (LIFECYCLE, ledger.full[0], "index")
        match change:
            case "removed":
                del values[at]
            case "doubled":
                values.insert(at, values[at])
            case "swapped":
                values[at], values[at + 1] = values[at + 1], values[at]
            case "cut off":
                del values[at:]
                expected = (LIFECYCLE, ledger.full[0], "truncated")
            case "garbage":
                values.insert(at, b"no batch")
                expected = (f"{self.LOG} offset {at}", None, "batch")
            case "signed anew":
                values[at] = batches.encode(replace(batch, note=note))
                expected = (f"{self.LOG} offset {at}", None, "checkpoint")
        found = problems(self.verify(ledger, sealed | {self.LOG: values}))
        assert found[0] == expected

    def test_two_partitions_swapped(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """Each log is sound, but not in the partition where it was sealed."""
        one, other = (f"access.activity.sealed/{partition}" for partition in (0, 1))
        found = problems(self.verify(ledger, sealed | {one: sealed[other], other: sealed[one]}))
        assert {(where, check) for where, _, check in found} >= {
            (f"{one} offset 0", "origin"),
            (f"{other} offset 0", "origin"),
        }

    def test_of_another_deployment(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        evidence = KafkaEvidence("other.example", [Record("access.lifecycle.sealed", 0, 0, sealed[self.LOG][0])], [])
        report = verify(evidence, LogKeys.single(ledger.signer.public_key)).as_json()
        assert problems(report) == [(f"{self.LOG} offset 0", None, "origin")]

    def test_log_deleted(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        assert problems(self.verify(ledger, sealed | {self.LOG: []})) == [(LIFECYCLE, 0, "truncated")]

    def test_restated_head(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """An empty batch restates the head of the log and nothing else."""
        last = batches.decode(sealed[self.LOG][-1])
        head = last.head(ledger.signer.public_key)
        empty, _ = batches.seal(head, batches.Records(), head.next_offset, last.sealed_at, ledger.signer)
        assert leaf_at(last, last.size - 1) == empty.previous_leaf_hash
        restated = sealed | {self.LOG: [*sealed[self.LOG], batches.encode(empty)]}
        assert problems(self.verify(ledger, restated)) == []
        wrong = replace(empty, previous_leaf_hash=bytes(32))
        restated[self.LOG][-1] = batches.encode(wrong)
        assert problems(self.verify(ledger, restated)) == [
            (f"{self.LOG} offset {len(sealed[self.LOG])}", None, "checkpoint")
        ]
        second, _ = batches.seal(
            replace(head, last_leaf=bytes(32)), batches.Records(), 99, last.sealed_at, ledger.signer
        )
        restated[self.LOG][-1] = batches.encode(second)  # signed with the key of the log, and still wrong
        assert problems(self.verify(ledger, restated)) == [(LIFECYCLE, last.size, "chain")]

    @pytest.mark.parametrize("change", ["removed", "last removed", "garbage", "doubled"])
    def test_an_anchor(self, ledger: Ledger, sealed: dict[str, list[bytes]], change: str) -> None:
        anchors = [encode_anchor(anchor) for anchor in ledger.anchors]
        assert decode_anchor(anchors[0]) == ledger.anchors[0]
        expected: tuple[str, int | None, str] = (ANCHORS, 2, "anchor_index")
        match change:
            case "removed":
                del anchors[2]
            case "last removed":
                del anchors[-1]
                expected = (ANCHORS, len(anchors), "anchor_index")
            case "garbage":
                anchors.insert(2, b"no anchor")
                expected = ("access.anchors/0 offset 2", None, "anchor")
            case "doubled":
                anchors.insert(2, anchors[2])
        assert expected in problems(self.verify(ledger, sealed, anchors))

    def test_forged_records_in_the_real_topics(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """The last test, through the command: afterwards the topics contain forged records."""
        code, report = ledger.pipeline.verify("--from", "kafka")
        assert code == 0, report["problems"]
        batch = batches.decode(sealed[self.LOG][self.at(sealed, ledger.full[0])])
        forged = batches.encode(replace(batch, values=flipped(batch.values)))
        produce(ledger.pipeline.cluster, "access.lifecycle.sealed", [{"value": forged}])
        produce(ledger.pipeline.cluster, "access.activity.sealed", [{"value": b"no batch", "partition": 2}])
        produce(ledger.pipeline.cluster, "access.anchors", [{"value": b"no anchor"}])
        code, report = ledger.pipeline.verify("--from", "kafka")
        assert code == 1
        found = problems(report)
        assert (LIFECYCLE, ledger.full[1], "payload") in found
        wheres = [origin for origin, _, _ in found]
        assert any(where.startswith("access.activity.sealed/2 offset ") for where in wheres)
        assert any(where.startswith("access.anchors/0 offset ") for where in wheres)
