"""The verifier detects and locates rows, notes and anchors that were removed, added, moved or hidden; and erasures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from grantledger.ledger import batch as batches
from grantledger.ledger.entry import chain
from grantledger.ledger.keys import LocalSigner
from grantledger.schemas.arrow import DECODED_SCHEMA, ERASED
from support.tamper import TABLES, replaced
from support.tampered_ledger import (
    ANCHORS,
    DEPLOYMENT,
    ERASED_INDEX,
    FINDINGS,
    LIFECYCLE,
    Ledger,
    problems,
    raw,
    row,
    rows,
    with_copy,
    without,
)


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
        assert LIFECYCLE in {origin for origin, _, _ in found}
        assert {where[1:] for where in found} == {(0, "truncated")}

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
        erasure = "event_type = 'payload.erased'"
        other = replaced("entries", erasure, subject_id=f"'{LIFECYCLE}#{ledger.middle}'")
        (log, _, check), erased = sorted(problems(ledger.store.verify({"entries": other})))
        assert (log, check) == (FINDINGS, "columns") and erased == (LIFECYCLE, ERASED_INDEX, "erased")


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
