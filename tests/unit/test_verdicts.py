"""The verdicts of a verification, the state file, and costs that grow with the evidence and no faster."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from grantledger.ledger.anchor import Anchor, anchor_origin, append_anchor, encode_anchor
from grantledger.ledger.batch import encode
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.ledger.merkle import EMPTY_ROOT, Frontier
from grantledger.ledger.note import Checkpoint
from grantledger.sinks.file_target import FileTarget
from grantledger.verifier.anchors import survey, verify_anchors
from grantledger.verifier.chunks import VARIABLE_COLUMNS
from grantledger.verifier.kafka_source import KafkaEvidence, PlacedRecord
from grantledger.verifier.logs import VerifiedLog, VerifiedRoots
from grantledger.verifier.outside import OutsideAnchors, read_outside
from grantledger.verifier.procedure import Progress, verify
from grantledger.verifier.remembered_heads import HeadsFileError, RememberedHeads, read_state, write_state
from grantledger.verifier.report import VerifyReport
from grantledger.verifier.row_reader import GROUP, cut_by_bytes
from grantledger.verifier.scratch import Scratch
from grantledger.verifier.steps import Problem
from grantledger.verifier.verdict import Verdict
from support.small_ledger import GENESIS, SIGNER, Entry, seal_parts

KEYS = LogKeys.single(SIGNER.public_key)
DEPLOYMENT = "test.example"
ENTRIES: list[Entry] = [(1, 10 + at, 0, b"k", b"v", b"\0\0\0\0") for at in range(6)]
BATCHES, HEAD = seal_parts([ENTRIES[:2], ENTRIES[2:4], ENTRIES[4:]])
ROOTS = {batch.size: batch.verified_head(SIGNER.public_key).frontier.root() for batch in BATCHES}


def anchors_over(sizes: Sequence[int], signer: LocalSigner = SIGNER) -> list[Anchor]:
    made, frontier = [], Frontier()
    for size in sizes:
        heads = [Checkpoint(GENESIS.origin, size, ROOTS[size])]
        at = 1_000 + 60_000 * frontier.size
        anchor, frontier = append_anchor(frontier, anchor_origin(DEPLOYMENT), at, heads, signer)
        made.append(anchor)
    return made


ANCHORS = anchors_over([2, 4, 6])


def in_kafka(batches: int = 3, deployment: str = DEPLOYMENT, anchors: Sequence[Anchor] = ANCHORS) -> KafkaEvidence:
    sealed = [
        PlacedRecord("access.lifecycle.sealed", 0, at, encode(batch)) for at, batch in enumerate(BATCHES[:batches])
    ]
    return KafkaEvidence(
        deployment,
        sealed,
        [PlacedRecord("access.anchors", 0, at, encode_anchor(one)) for at, one in enumerate(anchors)],
    )


@dataclass
class Stored:
    """A store, with only the parts of the evidence that a verdict depends on."""

    size: int
    anchors: Sequence[Anchor]
    problem: Problem | None = None
    deployment: str = DEPLOYMENT
    roots: Mapping[int, bytes] = field(default_factory=lambda: ROOTS)
    name: ClassVar[str] = "clickhouse"
    complete_epochs: ClassVar[bool] = True
    complete_anchors: ClassVar[bool] = False
    since: ClassVar[None] = None

    def read_anchors(self, report: VerifyReport) -> Sequence[Anchor]:
        return self.anchors

    def verify_logs(
        self, keys: LogKeys, covered: Mapping[str, int], scratch: Scratch, report: VerifyReport, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        log = VerifiedLog(GENESIS, VerifiedRoots(scratch.roots_of(GENESIS.origin)), self.problem)
        for size, root in self.roots.items():
            if size <= self.size:
                log.roots.add(size, root)
        report.entries = self.size
        return {GENESIS.origin: log} if self.size else {}


def test_each_verdict_has_its_own_exit_code_value_and_sentence() -> None:
    assert {verdict.value: verdict.exit_code for verdict in Verdict} == {
        "sound": 0, "tampered": 1, "could_not_check": 2, "behind": 3, "sound_compared_with_nothing_outside": 4,
    }  # fmt: skip
    assert len({verdict.sentence.partition(":")[0] for verdict in Verdict}) == len(Verdict)


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (lambda: verify(in_kafka(), KEYS, outside=OutsideAnchors(ANCHORS)), "sound"),
        (lambda: verify(in_kafka(), KEYS), "sound_compared_with_nothing_outside"),
        (lambda: verify(in_kafka(2), KEYS), "tampered"),
        (lambda: verify(in_kafka(), LogKeys.single(LocalSigner.generate().public_key)), "could_not_check"),
        (lambda: verify(in_kafka(deployment="other.example"), KEYS), "could_not_check"),
        (lambda: verify(in_kafka(0, anchors=[]), KEYS), "could_not_check"),
        (lambda: verify(Stored(6, ANCHORS), KEYS, outside=OutsideAnchors(ANCHORS)), "sound"),
        (lambda: verify(Stored(4, ANCHORS[:2]), KEYS, outside=OutsideAnchors(ANCHORS)), "behind"),
        (lambda: verify(Stored(0, []), KEYS, outside=OutsideAnchors(ANCHORS)), "behind"),
        (lambda: verify(Stored(4, ANCHORS), KEYS, outside=OutsideAnchors(ANCHORS)), "tampered"),
        (lambda: verify(Stored(4, ANCHORS), KEYS), "tampered"),
        (lambda: verify(Stored(0, []), KEYS), "could_not_check"),
    ],
)
def test_the_verdict(made: Callable[[], VerifyReport], verdict: str) -> None:
    report = made()
    assert report.as_json()["verdict"] == verdict
    assert list(report.as_text())[-1].startswith(Verdict(verdict).sentence)


def test_a_store_that_is_behind_hides_no_other_problem() -> None:
    """The first anchor outside that is not stored is behind; a later one contradicts what is stored."""
    other = [*ANCHORS[:2], *anchors_over([2, 4, 4])[2:]]
    forged = {**ROOTS, 4: bytes(32)}
    report = verify(Stored(4, ANCHORS[:1], roots=forged), KEYS, outside=OutsideAnchors(other))
    assert report.verdict is Verdict.tampered


@pytest.mark.parametrize("stored", [0, 2], ids=["emptied", "cut"])
def test_entries_that_an_old_anchor_covers_are_not_behind_but_removed(stored: int) -> None:
    """The anchors of a removed end are removed, too, so that only their age tells it from a store that lags."""
    outside, evidence = OutsideAnchors(ANCHORS), Stored(stored, ANCHORS[: stored // 2])
    recent = verify(evidence, KEYS, outside=outside, stored_by=ANCHORS[1].time_ms if stored else ANCHORS[0].time_ms)
    assert recent.verdict is Verdict.behind
    old = verify(evidence, KEYS, outside=outside, stored_by=ANCHORS[1].time_ms + 1)
    assert old.verdict is Verdict.tampered and old.verdict.exit_code == 1
    [problem] = old.problems
    assert problem.check == "truncated" and "anchor 1 covers" in problem.message and "1970-01-01" in problem.message
    complete = verify(Stored(6, ANCHORS), KEYS, outside=outside, stored_by=2**62)
    assert complete.verdict is Verdict.sound


def test_could_not_check_names_the_reason() -> None:
    text = list(verify(in_kafka(), LogKeys.single(LocalSigner.generate().public_key)).as_text())
    assert "signed by the public key that you brought" in text[-1]
    report = verify(in_kafka(deployment="other.example"), KEYS)
    assert "another deployment than other.example" in report.as_json()["could_not_check"][0]


def test_one_good_signature_makes_a_record_of_another_key_tampering() -> None:
    other = anchors_over([2, 4, 6], LocalSigner.generate())
    assert verify(in_kafka(anchors=other), KEYS).verdict is Verdict.tampered


def test_lines_of_the_anchor_file_that_are_no_anchors_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "anchors.jsonl"
    file.write_text('{"origin": "x"}\nnonsense\n')
    report = verify(in_kafka(), KEYS, outside=read_outside(file))
    assert report.verdict is Verdict.sound_alone and report.as_json()["unknown_lines"] == 2
    assert "contains no anchor" in report.nothing_outside
    assert "cannot be read" in read_outside(tmp_path / "missing").missing


def test_anchors_that_are_added_to_the_file_while_it_is_read_are_not_compared(tmp_path: Path) -> None:
    """Not even the rest of a line whose beginning was there."""
    target = FileTarget(tmp_path / "anchors.jsonl")
    for anchor in ANCHORS:
        target.publish(anchor)
    text = target.path.read_bytes()
    lines = text.splitlines(keepends=True)
    target.path.write_bytes(b"".join(lines[:2]) + lines[2][:-9])
    outside = read_outside(target.path)
    target.path.write_bytes(text)
    report = verify(in_kafka(), KEYS, outside=outside)
    assert report.verdict is Verdict.sound and report.outside_anchors == 2


def test_a_file_that_was_cut_is_compared_with_nothing_outside() -> None:
    many = anchors_over([2, 4, 6, 6, 6, 6])
    report = verify(in_kafka(anchors=many), KEYS, outside=OutsideAnchors(many[:2]))
    assert report.verdict is Verdict.tampered if report.problems else Verdict.sound_alone
    assert "end at anchor 1" in report.nothing_outside
    assert verify(in_kafka(anchors=many), KEYS, outside=OutsideAnchors(many[:-2])).verdict is Verdict.sound


def test_anchors_that_are_made_while_a_ledger_is_verified_are_no_gap_outside() -> None:
    """The file is read first, and a large ledger takes longer than some anchors."""
    many = anchors_over([2, 4, 6, 6, 6, 6])
    outside = OutsideAnchors(many[:2], read_at_ms=many[2].time_ms - 1)
    assert verify(in_kafka(anchors=many), KEYS, outside=outside).verdict is Verdict.sound


def test_a_log_in_no_anchor_is_named() -> None:
    report = verify(in_kafka(anchors=[]), KEYS)
    assert report.unanchored == [GENESIS.origin]
    assert any("is in no anchor" in line for line in report.as_text())
    assert verify(in_kafka(), KEYS).unanchored == []


class TestState:
    def state(self, source: str, size: int, root: bytes | None = None) -> RememberedHeads:
        return RememberedHeads(DEPLOYMENT).remember(source, {GENESIS.origin: (size, (root or ROOTS[size]).hex())})

    def test_contained(self) -> None:
        report = verify(in_kafka(), KEYS, remembered=self.state("kafka", 4))
        assert report.problems == [] and report.remembered == 1

    @pytest.mark.parametrize(
        ("state", "expected", "verdict"),
        [
            (("clickhouse", 6), "truncated", Verdict.tampered),
            (("kafka", 6), "truncated", Verdict.behind),
            (("clickhouse", 4, bytes(32)), "remembered_head", Verdict.tampered),
            (("kafka", 4, bytes(32)), "remembered_head", Verdict.tampered),
        ],
    )
    def test_no_longer_contained(self, state: tuple[str, int], expected: str, verdict: Verdict) -> None:
        """The end of the log and its anchors were removed together: only the state shows it."""
        report = verify(Stored(4, ANCHORS[:2]), KEYS, remembered=self.state(*state))
        assert [problem.check for problem in report.problems] == [expected]
        assert report.verdict is verdict

    def test_anchors_are_remembered(self) -> None:
        first = verify(Stored(6, ANCHORS), KEYS)
        state = RememberedHeads(DEPLOYMENT).remember("clickhouse", first.heads | first.anchor_heads)
        report = verify(Stored(6, ANCHORS[:2]), KEYS, remembered=state)
        assert [(problem.origin, problem.index) for problem in report.problems] == [(anchor_origin(DEPLOYMENT), 2)]

    def test_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        assert read_state(path, DEPLOYMENT) == RememberedHeads(DEPLOYMENT)
        write_state(path, self.state("kafka", 4))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and list(tmp_path.iterdir()) == [path]
        assert read_state(path, DEPLOYMENT) == self.state("kafka", 4)
        with pytest.raises(HeadsFileError, match="belongs to deployment"):
            read_state(path, "other.example")

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"version": 1, "heads": {"kafka": {"o": [1, "x"]}}}', "[" * 9999]
    )
    def test_a_file_that_is_no_state(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "state.json"
        path.write_text(text)
        with pytest.raises(HeadsFileError, match="not a state file"):
            read_state(path, DEPLOYMENT)

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(HeadsFileError, match="cannot be written"):
            write_state(tmp_path / "missing" / "state.json", RememberedHeads(DEPLOYMENT))


class Counted(dict[int, bytes]):
    """Roots that count how often they are looked at."""

    looked = 0

    def get(self, key, default=None):
        self.looked += 1
        return super().get(key, default)


@pytest.mark.parametrize("lost", [None, {GENESIS.origin: Checkpoint(GENESIS.origin, 10_000, bytes(32))}])
def test_anchors_cost_the_same_however_many_checkpoints_there_are(lost: dict[str, Checkpoint] | None) -> None:
    """One look at the roots per anchor and log: a search for the last one made months of anchors take hours."""
    costs = []
    for checkpoints in (100, 1_000):
        counted = Counted()
        log = VerifiedLog(GENESIS, VerifiedRoots(counted))
        for size in range(1, checkpoints + 1):
            log.roots.add(size, ROOTS[6])
        with closing(Scratch()) as scratch:
            made = anchors_over([6] * 50)
            verified = verify_anchors(made, KEYS, {GENESIS.origin: log}, DEPLOYMENT, scratch, lost=lost)
        assert verified.count == 50
        costs.append(counted.looked)
    assert costs[0] == costs[1] <= 100


def test_only_the_roots_that_are_compared_later_are_kept() -> None:
    """A log has a checkpoint per second and an anchor per minute."""
    with closing(Scratch()) as scratch:
        survey([*ANCHORS[:1], None, *ANCHORS[1:2]], DEPLOYMENT, scratch)
        scratch.want(GENESIS.origin, 7)
        log = VerifiedLog(GENESIS, VerifiedRoots(scratch.roots_of(GENESIS.origin)))
        for size in range(1, 1000):
            log.roots.add(size, b"%d" % size)
            assert log.head == (size, b"%d" % size)
        assert {size: root for size in range(1001) if (root := log.roots.at(size)) is not None} == {
            0: EMPTY_ROOT, 2: b"2", 4: b"4", 7: b"7", 999: b"999",
        }  # fmt: skip
        assert log.roots.count == 999 and log.roots.at(1 << 64) is None


def test_many_forged_records_are_counted_not_kept() -> None:
    report = VerifyReport("kafka", DEPLOYMENT)
    for at in range(5_000):
        report.add(Problem(f"record {at}", None, "checkpoint", "forged", "key"))
    report.add(Problem("log", 1, "payload", "changed"))
    assert len(report.problems) == 1_001 and report.omitted == 4_000 and report.verdict is Verdict.tampered


@pytest.mark.parametrize("rows", [0, 1, GROUP, 1_000, 1 << 16])
def test_rows_are_cut_by_their_bytes(rows: int) -> None:
    sizes = {group: (group * 37 % 11) << 20 for group in range(0, -(-rows // GROUP), 2)}
    limit, first = 16 << 20, 0
    for count in cut_by_bytes(sizes, rows, limit):
        groups = range(first // GROUP, -(-(first + count) // GROUP))
        assert len(groups) == 1 or sum(sizes.get(group, 0) for group in groups) <= limit
        first += count
    assert first == rows


def test_rows_that_are_each_larger_than_the_limit_are_read_group_by_group() -> None:
    assert list(cut_by_bytes({0: 99, 1: 99, 2: 1}, 3 * GROUP, 10)) == [GROUP] * 3


@pytest.mark.parametrize("text", ["d/[/x]/0/0", "d/[bold]/0/0", "x\nSOUND: all", "\x1b[2J", "\u202e", "[/]"])
def test_text_of_the_ledger_is_neither_markup_nor_a_line_of_its_own(text: str) -> None:
    report = VerifyReport(
        "clickhouse", DEPLOYMENT, heads={text: (1, "00")}, unanchored=[text], erased=[text], entries=1
    )
    report.add(Problem(text, 0, "origin", text))
    lines = list(report.as_text())
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith(("SOUND", "TAMPERED")) for line in lines) == 1
    assert json.loads(json.dumps(report.as_json()))["unanchored"] == [text]


def test_every_column_of_any_size_is_measured() -> None:
    assert {"key", "value", "headers", "note", "raw", "reason", "args", "approvals"} <= set(VARIABLE_COLUMNS)
    assert not {"index", "leaf_hash", "raw_sha256", "occurred_at", "erased_at"} & set(VARIABLE_COLUMNS)
