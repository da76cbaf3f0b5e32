"""The verifier detects changes by an attacker who recomputes the hashes, or hides an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from grantledger.ledger.anchor import Anchor, append_anchor
from grantledger.ledger.entry import chain, payload_hashes
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.merkle import Frontier, root_of
from grantledger.ledger.note import BatchFacts, Checkpoint, sign_checkpoint
from grantledger.schemas.arrow import DECODED_SCHEMA
from grantledger.schemas.catalog import event_schema
from support.events import read_datum, written
from support.tamper import replaced
from support.tampered_ledger import (
    ANCHORS,
    FINDINGS,
    LIFECYCLE,
    Ledger,
    by_index,
    first_message,
    problems,
    raw,
    row,
    with_copy,
)


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
            new, frontier = append_anchor(frontier, ANCHORS, anchor.time_ms, heads, signer)
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
