"""The verifier detects and locates every change to a column of a stored ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import pytest

from grantledger.ledger.entry import Genesis
from grantledger.ledger.note import NoteError, open_sealed_checkpoint
from grantledger.schemas.arrow import DECODED_SCHEMA
from grantledger.schemas.evidence import EVIDENCE_SCHEMA
from support.tamper import TABLES, other_value, replaced
from support.tampered_ledger import (
    ANCHORS,
    ERASED_INDEX,
    LIFECYCLE,
    Ledger,
    problems,
    raw,
    row,
    rows,
)

DECODED = [*DECODED_SCHEMA.names, "signature"]
LOGS = 5
"""Logs of access systems in the ledger."""


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

    SEALED: ClassVar = {
        "origin": "index", "index": "index", "offset": "leaf", "append_time": "leaf", "flags": "leaf",
        "previous_leaf_hash": "chain", "leaf_hash": "leaf", "payload_hash": "payload", "key": "payload",
        "value": "payload", "headers": "payload", "sealed_at": "sealed_at", "note": "checkpoint", "erased_at": "erased",
    }  # fmt: skip
    ENTRIES: ClassVar = SEALED | dict.fromkeys(DECODED, "columns")
    ORIGINS = ("origin", "topic_id", "first_offset", "previous_size", "previous_root", "genesis_hash")
    ANCHORS = ("origin", "index", "time", "bodies", "entry", "frontier", "note")

    def test_every_column_is_covered(self, ledger: Ledger) -> None:
        assert set(ledger.types["entries"]) == set(self.ENTRIES)
        assert set(ledger.types["entries"]) == {*EVIDENCE_SCHEMA.names, *DECODED}
        assert set(ledger.types["origins"]) == set(self.ORIGINS)
        assert set(ledger.types["anchors"]) == set(self.ANCHORS)

    @pytest.mark.parametrize("column", ["origin", "sealed_at"])
    def test_columns_that_other_entries_share(self, ledger: Ledger, column: str) -> None:
        value = other_value(ledger.types["entries"][column], column)
        report = ledger.store.verify({"entries": replaced("entries", row(ledger.middle), **{column: value})})
        found = problems(report)
        assert (LIFECYCLE, ledger.middle, self.ENTRIES[column]) in found
        assert {origin for origin, _, _ in found} <= {LIFECYCLE, LIFECYCLE[:-1] + "1"}

    def test_sealed_columns(self, ledger: Ledger) -> None:
        columns = set(self.SEALED) - {"origin", "sealed_at"}
        assert {column for column, *_ in self._changed(ledger, ledger.events, columns)} == columns

    def test_decoded_columns(self, ledger: Ledger) -> None:
        assert len(ledger.events) == LOGS
        found = list(self._changed(ledger, ledger.events, DECODED))
        assert {column for column, *_ in found} == set(DECODED)
        assert all(f"column {column} " in message for column, _, message in found)

    def test_rejected_entries(self, ledger: Ledger) -> None:
        columns = {
            "key", "value", "headers", "payload_hash", "note", "erased_at", "event_type", "occurred_at", "source_seq",
            "approvals", "expires_at", "args", "redacted", "finding_evidence", "raw", "raw_sha256", "decode_error",
        }  # fmt: skip
        assert LIFECYCLE in ledger.unreadable
        assert {column for column, *_ in self._changed(ledger, ledger.unreadable, columns)} == columns

    def _changed(
        self, ledger: Ledger, places: Mapping[str, int], columns: Iterable[str]
    ) -> Iterator[tuple[str, str, str]]:
        types = ledger.types["entries"]
        changes = [(column, other_value(types[column], column), self.ENTRIES[column]) for column in sorted(columns)]
        return ledger.changed_in_each_log(places, changes)

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

    def test_fields_of_an_approval(self, ledger: Ledger) -> None:
        fields = ("reviewer", "group", "decision", "at", "reason", "forced")
        other = {"at": "addMicroseconds(a.at, 1)", "forced": "NOT a.forced"}
        changes = []
        for field in fields:
            items = ", ".join(other.get(n, f"concat(a.{n}, 'x')") if n == field else f"a.{n}" for n in fields)
            value = f"arrayMap(a -> CAST(({items}), toTypeName(a)), approvals)"
            changes.append(("approvals", value, "columns"))
        found = ledger.changed_in_each_log(ledger.events, changes)
        assert {value for _, value, _ in found} == {value for _, value, _ in changes}

    def test_values_of_another_kind(self, ledger: Ledger) -> None:
        values = [
            ("key", "NULL"), ("value", "NULL"), ("value", "''"), ("headers", "''"), ("expires_at", "NULL"),
            ("source_seq", "NULL"), ("approvals", "[]"), ("args", "[]"), ("flags", "255"), ("flags", "0"),
            ("offset", "18446744073709551615"), ("append_time", "fromUnixTimestamp64Milli(0, 'UTC')"),
            ("raw_sha256", "toFixedString('', 32)"), ("subject_id", "unhex('ff')"), ("note", "unhex('ff')"),
            ("note", "'\\n\\n'"), ("note", "concat('9', repeat('9', 5000), '\\n')"), ("raw", "repeat('x', 1000000)"),
        ]  # fmt: skip
        changes = [(column, value, self.ENTRIES[column]) for column, value in values]
        found = ledger.changed_in_each_log(ledger.events, changes)
        assert sorted((column, value) for column, value, _ in found) == sorted(values)

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
            # With another origin it is an anchor of an epoch that was never opened.
            assert origin.rpartition("/")[0] == ANCHORS.rpartition("/")[0] and check in ("anchor", "anchor_index")
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
