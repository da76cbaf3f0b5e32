"""The report of a verification: for programs as JSON, for people as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ..base.text import counted, printable
from .since import Since
from .steps import STEPS, Problem, VerifyStep
from .verdict import Verdict

MOST_PROBLEMS = 1_000
"""Problems kept: anyone who can write to a topic can cause any number."""
MOST_LINES = 20
"""Erasures in the report for people; the report for programs lists all."""


@dataclass(slots=True)
class VerifyReport:
    """The findings of a verification.

    Attributes:
        source: ``clickhouse`` or ``kafka``.
        schemas: writer schemas on record; None if decoded columns were not checked.
        anchors: sound anchors stored here.
        outside_anchors: sound anchors from outside.
        outside_until_ms: the time of the latest of them, in milliseconds since 1970; None without one.
        outside_only: those of them that are not stored here (yet): a store receives an anchor last of all.
        behind: entries at the end of the logs that outside anchors cover and a running store has not stored in time.
        heads: size and root of each sound log.
        anchor_heads: size and root of each epoch of the anchor log, up to the first problem.
        unchecked: reasons why a part of the evidence could not be checked.
        states: rows of computed states, which are no evidence, that were compared with the entries.
        unchecked_states: why they were not.
        nothing_outside: why anchors from outside could not be compared, or only an old part of them.
        own_anchor_file: the file of the anchors from outside, if it is the one that this deployment writes.
        unknown_lines: lines of the outside anchor file that are not anchors.
        remembered: heads of earlier verifications that are still contained.
        newer_key: why the list of public keys may be older than the ledger; empty if it is not.
        unanchored: logs with entries that no anchor covers (yet).
        erased: entries, as origin#index, whose payload is erased and whose erasure is on record.
        omitted: problems beyond the first thousand.
        not_read: entries before the heads where the verification went on (``--since``).
        since: where a later verification may go on; None if no anchor is stored, or one has a problem.
        lost: entries at the end of an epoch that Kafka lost, by origin. A person opened the next epoch, which binds
            them.
    """

    source: str
    deployment: str
    logs: int = 0
    entries: int = 0
    checkpoints: int = 0
    schemas: int | None = None
    anchors: int = 0
    outside_anchors: int = 0
    outside_until_ms: int | None = None
    outside_only: int = 0
    behind: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    anchor_heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    states: int = 0
    states_seconds: float = 0.0
    unchecked_states: str = ""
    nothing_outside: str = "no anchors from outside were given (--anchors)"
    own_anchor_file: str = ""
    unknown_lines: int = 0
    remembered: int = 0
    newer_key: str = ""
    unanchored: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    omitted: int = 0
    not_read: int = 0
    since: Since | None = field(default=None, repr=False)
    _known: set[Problem] = field(default_factory=set, repr=False)

    @property
    def verdict(self) -> Verdict:
        """The result of the whole verification."""
        kinds = {problem.kind for problem in self.problems}
        matched = self.checkpoints or self.anchors or self.outside_anchors
        if self.newer_key:
            kinds.discard("key")  # the newer key may have signed these notes
        if "changed" in kinds or (kinds & {"key", "deployment"} and matched):
            return Verdict.tampered
        if self.not_checked():
            return Verdict.could_not_check
        if kinds:
            return Verdict.behind
        return Verdict.sound_alone if self.nothing_outside else Verdict.sound

    @property
    def sound(self) -> bool:
        """Whether all evidence is as it was signed."""
        return self.verdict in (Verdict.sound, Verdict.sound_alone)

    def not_checked(self) -> list[str]:
        """Return the reasons why the evidence, or a part of it, could not be checked."""
        reasons = [*self.unchecked, *([self.newer_key] if self.newer_key else [])]
        kinds = {problem.kind for problem in self.problems}
        if "deployment" in kinds:
            reasons.append(f"the evidence belongs to another deployment than {self.deployment}")
        if "key" in kinds and not self.newer_key:
            reasons.append("no checkpoint and no anchor is signed by the public key that you brought")
        if not (self.problems or self.entries or self.anchors or self.outside_anchors):
            reasons.append(f"nothing is stored of deployment {self.deployment}")
        return reasons

    def add(self, problem: Problem | None) -> None:
        """Record a problem once."""
        if problem is None or problem in self._known:
            return
        if len(self.problems) >= MOST_PROBLEMS and any(known.kind == problem.kind for known in self.problems):
            self.omitted += 1
            return
        self._known.add(problem)
        self.problems.append(problem)

    def result_of(self, step: VerifyStep) -> str:
        """Return ``passed``, ``failed``, ``not checked``, or ``incomplete``: checking ended early at a problem."""
        if any(problem.step is step for problem in self.problems):
            return "failed"
        if not self._count(step):
            return "not checked"
        return "incomplete" if self.problems else "passed"

    def _count(self, step: VerifyStep) -> int:
        if step.name == "Decoded columns" and self.schemas is None:
            return 0
        return getattr(self, step.unit) or 0

    def not_proved(self) -> list[str]:
        """Return the limits of this verification, as sentences for people."""
        outside = ["that no log was cut off at its end: no anchors from outside were compared (--anchors)"]
        if self.outside_anchors:
            outside = [f"that nothing was removed after the last anchor from outside{self._outside_until()}"]
            if self.own_anchor_file:
                outside.append(
                    f"that nobody changed {self.own_anchor_file} together with the logs: this deployment writes it. "
                    "Bring a copy from a place where its operators cannot write (--anchors)"
                )
        other = (
            "that ClickHouse stores the same: run `grantledger verify` without --from"
            if self.source == "kafka"
            else f"that the receipts are right: only {self._checked()} were checked"
        )
        earlier = [
            f"that the first {self.not_read:,} entries, and the anchors of that time, are unchanged since the earlier "
            "verification: they were not read (--since)"
        ]
        return [
            f"that the public key and the name {self.deployment} are the right ones: compare both with a copy that you "
            "did not get from this ledger",
            *(earlier if self.not_read else []),
            *outside,
            other,
            "that the events are true and complete: the ledger contains the events that were sent",
            "that the clocks were right: times are signed, but no outside party confirmed them",
        ]

    def _outside_until(self) -> str:
        if self.outside_until_ms is None:
            return ""
        return f", of {datetime.fromtimestamp(self.outside_until_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"

    def _checked(self) -> str:
        states = "" if self.unchecked_states else "the states, "
        return f"entries, origins, anchors, {states}and the definitions of tables and views"

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        steps = [
            {"number": step.number, "name": step.name, "result": self.result_of(step), "checked": self._count(step)}
            for step in STEPS
        ]
        problems = [asdict(problem) | {"step": problem.step.number} for problem in self.problems]
        fields = asdict(replace(self, since=None)) | {
            "problems": problems,
            "steps": steps,
            "not_proved": self.not_proved(),
        }
        del fields["_known"], fields["since"]
        reasons = {"could_not_check": self.not_checked()} if self.verdict is Verdict.could_not_check else {}
        return {"verdict": self.verdict.value, "sound": self.sound} | fields | reasons

    def as_text(self) -> Iterator[str]:
        """Yield the report for people, line by line.

        Names may come from an attacker: control characters, which could overwrite lines of a terminal, are escaped.
        """
        for line in self._lines():
            yield printable(line)

    def _lines(self) -> Iterator[str]:
        rate = f", {self.entries / self.seconds:,.0f} entries/s" if self.entries >= 10_000 else ""
        states = f"; the states in {self.states_seconds:.1f} s" if self.states else ""
        yield f"Verified {self.deployment} from {self.source} in {self.seconds:.1f} s{rate}{states}"
        for step in STEPS:
            count = counted(self._count(step), step.unit.replace("_", " "))
            yield f"  {step.number:>2} {step.name:<16} {self.result_of(step):<12} {count}"
        for origin, (size, root) in sorted(self.heads.items()):
            yield f"  {origin}  {size:,} entries  root {root[:16]}…"
        for origin, lost in sorted(self.lost.items()):
            yield f"  {origin}  {lost:,} entries at its end are not in Kafka; the next epoch binds them"
        yield from self._facts()
        for problem in self.problems:
            where = problem.origin if problem.index is None else f"{problem.origin} index {problem.index}"
            yield f"Problem: {where}: {problem.check}: {problem.message}"
        if self.omitted:
            yield f"  and {self.omitted:,} more problems"
        if self.source == "clickhouse" and any(problem.check == "truncated" for problem in self.problems):
            yield (
                "Entries that anchors cover are also missing if they are not stored yet: `grantledger run store` has "
                "stopped, or cannot reach Kafka or ClickHouse. `grantledger verify --from kafka` shows whether they "
                "were sealed. If the store does not catch up, somebody removed them."
            )
        yield "This does not prove:"
        for sentence in self.not_proved():
            yield f"  - {sentence}"
        verdict = self.verdict
        reasons = "; ".join(self.not_checked())
        yield f"{verdict.sentence}: {reasons}" if verdict is Verdict.could_not_check else verdict.sentence

    def _facts(self) -> Iterator[str]:
        """Yield facts that are no problems."""
        if self.outside_only:
            yield f"  {self.outside_only:,} anchors from outside are not stored here (yet)"
        if self.nothing_outside:
            yield f"  compared with nothing outside: {self.nothing_outside}"
        if self.unknown_lines:
            yield f"  {self.unknown_lines:,} lines of the file of outside anchors are not anchors"
        if self.remembered:
            yield f"  {self.remembered:,} heads of earlier verifications are still contained"
        for origin in self.unanchored:
            yield f"  {origin} is in no anchor (yet)"
        for name in self.erased[:MOST_LINES]:
            yield f"  erased, and the erasure is on record: {name}"
        if len(self.erased) > MOST_LINES:
            yield f"  and {len(self.erased) - MOST_LINES:,} more erased payloads"
        for reason in self.unchecked:
            yield f"  not checked: {reason}"
        if self.unchecked_states:
            yield f"  states not checked: {self.unchecked_states}"
