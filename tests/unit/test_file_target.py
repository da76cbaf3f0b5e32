"""The anchor target ``file``: each anchor once, after any crash, and never two histories in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.anchor import (
    Anchor,
    AnchorConflictError,
    AnchorGapError,
    AnchorTargetError,
    anchor_origin,
    append_anchor,
)
from grantledger.ledger.merkle import Frontier
from grantledger.ledger.note import Checkpoint
from grantledger.sinks.file_target import FileTarget, read_anchor_file
from support.small_ledger import SIGNER


def anchors(count: int, deployment: str = "test.example", root: bytes = bytes(32)) -> list[Anchor]:
    frontier, made = Frontier(), []
    for number in range(count):
        checkpoint = Checkpoint(f"{deployment}/access.lifecycle/0/0", number, root)
        anchor, frontier = append_anchor(
            frontier, anchor_origin(deployment), 1_772_366_400_000 + number, [checkpoint], SIGNER
        )
        made.append(anchor)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outside" / "anchors.jsonl"


def test_anchors_come_back_as_they_were(path: Path) -> None:
    target = FileTarget(path)
    made = anchors(5)
    for anchor in made:
        receipt = target.publish(anchor)
        assert receipt == f"{path}:{path.stat().st_size}".encode()
    assert list(read_anchor_file(path)) == made
    line = json.loads(path.read_text("utf-8").splitlines()[0])
    assert line["time"] == "2026-03-01T12:00:00.000+00:00"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_anchor_twice_is_there_once(path: Path) -> None:
    made = anchors(3)
    for anchor in [made[0], made[0], *made, made[2], made[1]]:
        FileTarget(path).publish(anchor)
    assert list(read_anchor_file(path)) == made


def test_a_line_cut_off_by_a_crash_stays_on_its_own_line(path: Path) -> None:
    made = anchors(2)
    target = FileTarget(path)
    target.publish(made[0])
    whole = path.read_bytes()
    target.publish(made[1])
    torn = path.read_bytes()[len(whole) : -50]
    path.write_bytes(whole + torn)
    target.publish(made[1])
    assert path.read_bytes().startswith(whole + torn + b"\n")
    assert list(read_anchor_file(path)) == made


@given(st.integers(0, 2000))
def test_a_crash_anywhere_is_mended_by_publishing_again(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    path = tmp_path_factory.mktemp("anchors") / "anchors.jsonl"
    target = FileTarget(path)
    made = anchors(3)
    for anchor in made[:2]:
        target.publish(anchor)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(kept, len(whole))])
    present = len(list(read_anchor_file(path)))
    for anchor in made[present:]:  # what the anchor process knows as not answered for
        target.publish(anchor)
    assert list(read_anchor_file(path)) == made


def test_another_history_is_refused(path: Path) -> None:
    target = FileTarget(path)
    for anchor in anchors(3):
        target.publish(anchor)
    before = path.read_bytes()
    for anchor in anchors(3, root=b"\1" * 32):
        with pytest.raises(AnchorTargetError, match="two histories"):
            target.publish(anchor)
    assert path.read_bytes() == before


def test_an_old_anchor_that_the_file_never_got_is_refused(path: Path) -> None:
    """The file goes on beyond it, so it is no crash that is mended here."""
    made = anchors(3)
    FileTarget(path).publish(made[0])
    lines = path.read_bytes()
    FileTarget(path).publish(made[1])
    FileTarget(path).publish(made[2])
    path.write_bytes(lines + path.read_bytes().splitlines(keepends=True)[2])
    with pytest.raises(AnchorConflictError, match="goes on beyond anchor 1"):
        FileTarget(path).publish(made[1])


def test_a_file_of_another_deployment_is_refused(path: Path) -> None:
    FileTarget(path).publish(anchors(1)[0])
    with pytest.raises(AnchorTargetError, match=r"belongs to test\.example/anchors/0/0, not to other\.example"):
        FileTarget(path).publish(anchors(2, "other.example")[1])


def test_a_gap_names_the_first_missing_anchor(path: Path) -> None:
    """A target that was away gets all anchors, so that the file proves that each extends the one before."""
    made = anchors(4)
    target = FileTarget(path)
    target.publish(made[0])
    with pytest.raises(AnchorGapError, match="lacks anchors 1 to 2") as gap:
        target.publish(made[3])
    for anchor in made[gap.value.index :]:
        target.publish(anchor)
    assert list(read_anchor_file(path)) == made
    assert target.last() == made[3]


def test_an_anchor_that_does_not_extend_the_last_one_is_refused(path: Path) -> None:
    """The true key signed it: the anchor log was begun again, and has as many anchors as the file by now."""
    target = FileTarget(path)
    for anchor in anchors(3)[:2]:
        target.publish(anchor)
    before = path.read_bytes()
    with pytest.raises(AnchorConflictError, match="anchor 2 .* does not continue the ones before it: two histories"):
        target.publish(anchors(3, root=b"\1" * 32)[2])
    assert path.read_bytes() == before


def test_a_new_epoch_must_bind_the_last_anchor_in_the_file(path: Path) -> None:
    target, made = FileTarget(path), anchors(3)
    for anchor in made:
        target.publish(anchor)
    origin = anchor_origin("test.example", 1)
    head = made[2].head()
    wrong = [[], [Checkpoint(head.origin, 2, made[1].head().root)], [Checkpoint(head.origin, 3, bytes(32))]]
    for bound in wrong:
        with pytest.raises(AnchorConflictError, match="bind"):
            target.publish(append_anchor(Frontier(), origin, 7, bound, SIGNER)[0])
    first, frontier = append_anchor(Frontier(), origin, 7, [head], SIGNER)
    second, _ = append_anchor(frontier, origin, 8, [head], SIGNER)
    with pytest.raises(AnchorGapError, match="lacks the first anchors"):
        target.publish(second)
    target.publish(first)
    target.publish(second)
    assert list(read_anchor_file(path)) == [*made, first, second]
    further = Checkpoint(first.origin, 5, bytes(32))  # another copy held more anchors
    target.publish(append_anchor(Frontier(), anchor_origin("test.example", 2), 9, [further], SIGNER)[0])


def test_an_unwritable_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnchorTargetError, match=r"cannot be written: .* \(anchor_file\)"):
        FileTarget(tmp_path / "file" / "anchors.jsonl").publish(anchors(1)[0])
    with pytest.raises(AnchorTargetError, match="cannot be written"):
        FileTarget(tmp_path).publish(anchors(1)[0])


GOOD = {"origin": "o", "index": 0, "time_ms": 0, "bodies": [], "frontier": "", "note": ""}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        *(json.dumps(GOOD | change).encode() for change in (
            {"index": "0"}, {"index": -1}, {"index": True}, {"time_ms": 2**70}, {"time_ms": None}, {"bodies": [1]},
            {"bodies": ["\ud800"]}, {"bodies": 7}, {"frontier": "zz"}, {"frontier": None}, {"note": 5},
            {"origin": None},
        )),
    ],
)  # fmt: skip
def test_lines_that_are_no_anchors_are_passed_over(path: Path, line: bytes) -> None:
    [first, second] = anchors(2)
    target = FileTarget(path)
    target.publish(first)
    with path.open("ab") as file:
        file.write(line + b"\n")
    target.publish(second)
    assert list(read_anchor_file(path)) == [first, second]


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_anchor_file(path))
