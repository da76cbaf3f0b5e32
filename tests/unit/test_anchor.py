"""Anchors: entry and note compared with hand-made bytes; any changed field is found."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from contextlib import closing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.anchor import (
    Anchor,
    AnchorError,
    Receipt,
    anchor_entry,
    anchor_origin,
    append_anchor,
    check_anchor,
    decode_anchor,
    decode_receipt,
    encode_anchor,
    encode_receipt,
)
from grantledger.ledger.entry import Genesis, leaf_hash
from grantledger.ledger.keys import LogKeys
from grantledger.ledger.merkle import EMPTY_ROOT, Frontier, root_of
from grantledger.ledger.note import Checkpoint, open_own_checkpoint
from grantledger.verifier.anchors import check_covered, verify_anchors
from grantledger.verifier.logs import VerifiedLog
from grantledger.verifier.scratch import Scratch
from grantledger.verifier.steps import Problem
from support.small_ledger import SIGNER

KEY = SIGNER.public_key
LOGS = ("test.example/access.activity/0/0", "test.example/access.activity/1/0", "test.example/access.lifecycle/0/0")


def root(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def checkpoints(step: int) -> list[Checkpoint]:
    """The heads of three logs, given in another order than that of their origins."""
    return [Checkpoint(origin, 10 * step + at, root(f"{origin} {step}")) for at, origin in reversed([*enumerate(LOGS)])]


def anchors(count: int) -> list[Anchor]:
    frontier, made = Frontier(), []
    for number in range(count):
        anchor, frontier = append_anchor(
            frontier, anchor_origin("test.example"), 1_000 * number, checkpoints(number), SIGNER
        )
        made.append(anchor)
    return made


ROOTS = {origin: {10 * step + at: root(f"{origin} {step}") for step in range(5)} for at, origin in enumerate(LOGS)}


def test_an_entry_byte_by_byte() -> None:
    bodies = [checkpoint.body() for checkpoint in checkpoints(1)[::-1]]
    leaves = [hashlib.sha256(b"\0" + body.encode()).digest() for body in bodies]
    inner = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    tree = hashlib.sha256(b"\1" + inner + leaves[2]).digest()
    assert anchor_entry(-5, bodies) == b"GLA1" + struct.pack(">qI", -5, 3) + tree
    assert anchor_entry(0, []) == b"GLA1" + bytes(12) + hashlib.sha256(b"").digest()


def test_an_anchor_covers_the_heads_in_order_of_their_origins() -> None:
    first, second = anchors(2)
    assert first.origin == anchor_origin("test.example") == "test.example/anchors/0/0"
    assert [body.split("\n")[0] for body in first.bodies] == sorted(LOGS, key=str.encode)
    assert (first.index, second.index, second.time_ms) == (0, 1, 1_000)
    head = open_own_checkpoint(second.note, KEY)
    assert (head.origin, head.size) == (second.origin, 2)
    assert head.root == root_of([leaf_hash(first.entry), leaf_hash(second.entry)])
    assert check_anchor(second, KEY).pack() == second.frontier


def test_anchors_come_back_as_they_were_written() -> None:
    for anchor in anchors(3):
        assert decode_anchor(encode_anchor(anchor)) == anchor


def test_receipts_come_back_as_they_were_written() -> None:
    receipt = Receipt("test.example/anchors/0/0", 3, "file", datetime(2026, 1, 1, tzinfo=UTC), b"\xff", "full")
    assert decode_receipt(encode_receipt(receipt)) == receipt


@given(st.data())
def test_corrupt_anchors_are_refused_or_read_as_another(data: st.DataObject) -> None:
    [anchor] = anchors(1)
    value = encode_anchor(anchor)
    at = data.draw(st.integers(0, len(value) - 1))
    changed = value[:at] + data.draw(st.binary(max_size=6)) + value[at + data.draw(st.integers(0, 4)) :]
    try:
        read = decode_anchor(changed)
        check_anchor(read, KEY)
    except AnchorError:
        return
    assert read == anchor


def test_truncated_and_prolonged_anchors_are_refused() -> None:
    [anchor] = anchors(1)
    value = encode_anchor(anchor)
    for end in range(len(value)):
        with pytest.raises(AnchorError):
            decode_anchor(value[:end])
    with pytest.raises(AnchorError, match="1 bytes follow the datum"):
        decode_anchor(value + b"\0")
    with pytest.raises(AnchorError, match="its index is -1"):
        decode_anchor(encode_anchor(dataclasses.replace(anchor, index=-1)))


def logs_of(roots: dict[str, dict[int, bytes]], unsound: str = "") -> dict[str, VerifiedLog]:
    problem = Problem(unsound, 0, "leaf", "it is not sound")
    logs = {}
    for origin, known in roots.items():
        log = logs[origin] = VerifiedLog(Genesis(origin, bytes(16), 0), problem=problem if origin == unsound else None)
        for size, root in known.items():
            log.roots.add(size, root)
    return logs


def verify(
    made: list[Anchor], roots: dict[str, dict[int, bytes]] = ROOTS, unsound: str = ""
) -> tuple[int, Problem | None]:
    """Return the number of sound anchors, and the first problem."""
    logs = logs_of(roots, unsound)
    with closing(Scratch()) as scratch:
        found = verify_anchors(made, LogKeys.single(KEY), logs, "test.example", scratch)
    return found.count, found.problem


def test_sound_anchors_are_sound() -> None:
    assert verify(anchors(4)) == (4, None)
    assert verify([]) == (0, None)


MUTATIONS = {
    "origin": "test.example/anchors/0/1",
    "index": 7,
    "time_ms": 1,
    "bodies": anchors(2)[1].bodies[:2],
    "entry": bytes(48),
    "frontier": bytes(32),
    "note": anchors(4)[3].note,
}


@pytest.mark.parametrize("field", MUTATIONS)
@pytest.mark.parametrize("at", range(4))
def test_a_change_of_any_field_of_any_anchor_is_found_where_it_is(field: str, at: int) -> None:
    made = anchors(5)
    made[at] = dataclasses.replace(made[at], **{field: MUTATIONS[field]})
    if made[at] == anchors(5)[at]:
        return
    count, problem = verify(made)
    assert count == at
    assert problem is not None
    assert problem.index == at
    assert problem.check in ("anchor", "anchor_index")


@given(st.data())
def test_a_change_of_any_character_of_an_anchor_is_found(data: st.DataObject) -> None:
    made = anchors(3)
    at = data.draw(st.integers(0, 2))
    field = data.draw(st.sampled_from(["note", "bodies", "entry", "frontier"]))
    old = getattr(made[at], field)
    if field == "bodies":
        which = data.draw(st.integers(0, 2))
        new = tuple(_changed(data, body) if number == which else body for number, body in enumerate(old))
    else:
        new = _changed(data, old)
    if new == old:
        return
    made[at] = dataclasses.replace(made[at], **{field: new})
    assert verify(made)[0] == at


def _changed(data: st.DataObject, old: str | bytes) -> str | bytes:
    at = data.draw(st.integers(0, len(old) - 1))
    if isinstance(old, bytes):
        return old[:at] + data.draw(st.binary(max_size=2)) + old[at + 1 :]
    return old[:at] + data.draw(st.text(max_size=2)) + old[at + 1 :]


@pytest.mark.parametrize("gone", range(3))
def test_an_anchor_left_out_or_doubled_is_found(gone: int) -> None:
    made = anchors(4)
    count, problem = verify(made[:gone] + made[gone + 1 :])
    assert (count, problem and problem.check) == (gone, "anchor_index")
    count, problem = verify(made[: gone + 1] + made[gone:])
    assert (count, problem and problem.check) == (gone + 1, "anchor_index")


def test_bodies_out_of_order_or_doubled_are_refused() -> None:
    [anchor] = anchors(1)
    for bodies in (anchor.bodies[::-1], (*anchor.bodies[:1], *anchor.bodies)):
        forged = dataclasses.replace(anchor, bodies=tuple(bodies), entry=anchor_entry(anchor.time_ms, bodies))
        with pytest.raises(AnchorError, match="not sorted by origin"):
            check_anchor(forged, KEY)


def test_a_log_that_became_shorter_is_found_by_the_anchor_that_covers_it() -> None:
    shorter = {**ROOTS, LOGS[1]: {size: root for size, root in ROOTS[LOGS[1]].items() if size < 21}}
    count, problem = verify(anchors(4), shorter)
    assert count == 2
    assert problem is not None
    assert (problem.origin, problem.check, problem.index) == (LOGS[1], "truncated", 11)


def test_a_log_that_is_gone_is_found() -> None:
    count, problem = verify(anchors(4), {origin: ROOTS[origin] for origin in LOGS[:2]})
    assert (count, problem and problem.check, problem and problem.origin) == (0, "truncated", LOGS[2])


def test_a_rewritten_history_is_found() -> None:
    rewritten = {**ROOTS, LOGS[0]: {**ROOTS[LOGS[0]], 20: root("another")}}
    count, problem = verify(anchors(4), rewritten)
    assert (count, problem and problem.check, problem and problem.index) == (2, "anchored_head", 19)
    assert problem is not None
    assert "history was rewritten" in problem.message


def test_a_checkpoint_that_is_gone_is_found() -> None:
    without = {**ROOTS, LOGS[0]: {size: root for size, root in ROOTS[LOGS[0]].items() if size != 10}}
    count, problem = verify(anchors(4), without)
    assert (count, problem and problem.check, problem and problem.index) == (1, "anchored_head", 9)


def test_logs_that_are_known_to_be_unsound_are_passed_over() -> None:
    without = ROOTS | {LOGS[2]: {0: EMPTY_ROOT}}
    assert verify(anchors(4), without, unsound=LOGS[2]) == (4, None)


def test_a_log_without_entries_may_be_missing() -> None:
    anchor, _ = append_anchor(
        Frontier(), anchor_origin("test.example"), 0, [Checkpoint("test.example/new/0/0", 0, root_of([]))], SIGNER
    )
    assert list(check_covered(anchor, {})) == []
