"""A verification that goes on where an earlier one ended: of what is new, it finds what a whole one finds."""

from __future__ import annotations

from typing import Any

import pytest

from support.tamper import other_value, replaced
from support.tampered_ledger import ANCHORS, FINDINGS, LIFECYCLE, Ledger, problems, row, with_copy, without

SAME = ("heads", "anchor_heads", "outside_until_ms", "unanchored", "schemas", "unchecked", "sound")


def sizes_at(ledger: Ledger, anchor: int) -> dict[str, int]:
    """The sizes that an anchor covers."""
    heads = [body.split("\n") for body in ledger.anchors[anchor].bodies]
    return {origin: int(size) for origin, size, *_ in heads if not origin.startswith(ANCHORS)}


@pytest.fixture
def known(ledger: Ledger) -> dict[str, int]:
    """Verify the ledger as it was when it had only some of its anchors; return the sizes of the logs then."""
    anchor = len(ledger.anchors) // 2
    sizes = sizes_at(ledger, anchor)
    assert 3 < sizes[LIFECYCLE] < ledger.size()
    sizes[FINDINGS] = ledger.size(FINDINGS)  # an erasure of an early entry is on record late
    then = " OR ".join(f"(origin = '{origin}' AND index < {size})" for origin, size in sizes.items())
    tables = {
        "entries": f"SELECT * FROM entries WHERE {then}",
        "origins": f"SELECT * FROM origins WHERE origin IN {tuple(sizes)}",
        "anchors": f"SELECT * FROM anchors WHERE index <= {anchor}",
    }
    report = ledger.store.verify(tables, anchor_file=None)
    assert problems(report) == [] and report["anchors"] == anchor + 1
    return sizes


def later(ledger: Ledger, changed: dict[str, str] | None = None) -> dict[str, Any]:
    return ledger.store.verify(changed, since=True)


def test_only_what_is_new_is_read(ledger: Ledger, known: dict[str, int]) -> None:
    found = later(ledger)
    not_read = sum(size for origin, size in known.items() if origin != FINDINGS)
    whole = ledger.store.verify()
    assert problems(found) == [] and found["not_read"] == not_read > 0
    assert found["entries"] == whole["entries"] - not_read and found["anchors"] < whole["anchors"]
    assert {name: found[name] for name in SAME} == {name: whole[name] for name in SAME}
    assert any("--since" in sentence for sentence in found["not_proved"])
    again = later(ledger)  # from the last anchor: nothing is new
    assert problems(again) == [] and again["anchors"] == 1 and again["heads"] == whole["heads"]
    assert again["entries"] < found["entries"]


def test_changes_to_what_is_new_are_found(ledger: Ledger, known: dict[str, int]) -> None:
    new = range(known[LIFECYCLE], ledger.size())
    assert len(new) > 2
    for column, check in (
        ("value", "payload"),
        ("leaf_hash", "leaf"),
        ("previous_leaf_hash", None),
        ("note", "checkpoint"),
    ):
        for index in (new[0], new[-1]):
            value = other_value(ledger.types["entries"][column], column)
            report = later(ledger, {"entries": replaced("entries", row(index), **{column: value})})
            # The first row that is read only has its leaf to show that it names another entry before it.
            expected = check or ("leaf" if index == new[0] else "chain")
            assert problems(report)[0] == (LIFECYCLE, index, expected), column
    assert problems(later(ledger, without(row(new[1])))) == [(LIFECYCLE, new[1], "index")]
    assert problems(later(ledger, with_copy(row(new[1])))) == [(LIFECYCLE, new[1], "index")]


def test_rows_that_are_missing_or_added_before_are_found(ledger: Ledger, known: dict[str, int]) -> None:
    for changed in (without(row(1)), with_copy(row(1)), without(f"origin = '{LIFECYCLE}' AND index > 2")):
        assert problems(later(ledger, changed)) == problems(ledger.store.verify(changed)) != []
    assert known


def test_an_entry_before_is_not_read(ledger: Ledger, known: dict[str, int]) -> None:
    changed = {"entries": replaced("entries", row(1), value="'x'")}
    assert problems(later(ledger, changed)) == []
    assert problems(ledger.store.verify(changed)) == [(LIFECYCLE, 1, "payload")]
    assert known[LIFECYCLE] > 1


def test_other_anchors_are_found(ledger: Ledger, known: dict[str, int]) -> None:
    anchor = len(ledger.anchors) // 2
    gone = {"anchors": f"SELECT * FROM anchors WHERE index >= {anchor}"}
    assert problems(later(ledger, gone)) == []
    for index in (anchor, anchor + 1):
        changed = {"anchors": replaced("anchors", f"index = {index}", time="addMilliseconds(time, 1)")}
        assert (ANCHORS, index, "anchor") in problems(later(ledger, changed))
    cut = {"anchors": f"SELECT * FROM anchors WHERE index < {anchor}"}
    assert (ANCHORS, anchor, "anchor_index") in problems(later(ledger, cut))
    assert known
