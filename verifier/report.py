"""The report of a verification: for programs as JSON, for people as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ..base.text import printable
from .steps import STEPS, Problem, Step

EXIT_SOUND = 0
EXIT_TAMPERED = 1
EXIT_COULD_NOT_CHECK = 2


@dataclass(slots=True)
class Report:
    """The findings of a verification.

    Attributes:
        source: ``clickhouse`` or ``kafka``.
        schemas: writer schemas on record; None if decoded columns were not checked.
        anchors: sound anchors stored here.
        outside_anchors: sound anchors from outside.
        outside_only: those of them that are not stored here (yet): a store receives an anchor last of all.
        behind: entries at the end of the logs that outside anchors cover and a running store has not stored in time.
        heads: size and root of each sound log.
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
    outside_only: int = 0
    behind: int = 0
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether all evidence is as it was signed."""
        return not self.problems

    @property
    def exit_code(self) -> int:
        """0 sound, 1 tampered, 2 there is nothing to check."""
        if not self.sound:
            return EXIT_TAMPERED
        checked = self.entries or self.anchors or self.outside_anchors
        return EXIT_SOUND if checked else EXIT_COULD_NOT_CHECK

    def add(self, problem: Problem | None) -> None:
        """Record a problem once."""
        if problem is not None and problem not in self.problems:
            self.problems.append(problem)

    def result_of(self, step: Step) -> str:
        """Return ``passed``, ``failed``, ``not checked``, or ``incomplete``: checking ended early at a problem."""
        if any(problem.step is step for problem in self.problems):
            return "failed"
        if not self._count(step):
            return "not checked"
        return "passed" if self.sound else "incomplete"

    def _count(self, step: Step) -> int:
        if step.name == "Decoded columns" and self.schemas is None:
            return 0
        return getattr(self, step.unit) or 0

    def not_proved(self) -> list[str]:
        """Return the limits of this verification, as sentences for people."""
        outside = (
            "that nothing was removed after the last anchor from outside"
            if self.outside_anchors
            else "that no log was cut off at its end: no anchors from outside were compared (--anchors)"
        )
        other = (
            "that ClickHouse stores the same: run `grantledger verify` without --from"
            if self.source == "kafka"
            else "that views, receipts and derived tables are right: only entries, origins and anchors were checked"
        )
        return [
            f"that the public key and the name {self.deployment} are the right ones: compare both with a copy that you "
            "did not get from this ledger",
            outside,
            other,
            "that the events are true and complete: the ledger contains the events that were sent",
            "that the clocks were right: times are signed, but no outside party confirmed them",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        steps = [
            {"number": step.number, "name": step.name, "result": self.result_of(step), "checked": self._count(step)}
            for step in STEPS
        ]
        problems = [asdict(problem) | {"step": problem.step.number} for problem in self.problems]
        fields = asdict(self) | {"problems": problems, "steps": steps, "not_proved": self.not_proved()}
        return {"sound": self.sound} | fields

    def as_text(self) -> Iterator[str]:
        """Yield the report for people, line by line.

        Names may come from an attacker: control characters, which could overwrite lines of a terminal, are escaped.
        """
        for line in self._lines():
            yield printable(line)

    def _lines(self) -> Iterator[str]:
        rate = f", {self.entries / self.seconds:,.0f} entries/s" if self.entries >= 10_000 else ""
        yield f"Verified {self.deployment} from {self.source} in {self.seconds:.1f} s{rate}"
        for step in STEPS:
            count = f"{self._count(step):,} {step.unit.replace('_', ' ')}"
            yield f"  {step.number:>2} {step.name:<16} {self.result_of(step):<12} {count}"
        for origin, (size, root) in sorted(self.heads.items()):
            yield f"  {origin}  {size:,} entries  root {root[:16]}…"
        for origin, lost in sorted(self.lost.items()):
            yield f"  {origin}  {lost:,} entries at its end are not in Kafka; the next epoch binds them"
        if self.outside_only:
            yield f"  {self.outside_only:,} anchors from outside are not stored here (yet)"
        for problem in self.problems:
            where = problem.origin if problem.index is None else f"{problem.origin} index {problem.index}"
            yield f"Problem: {where}: {problem.check}: {problem.message}"
        if self.source == "clickhouse" and any(problem.check == "truncated" for problem in self.problems):
            yield (
                "Entries that anchors cover are also missing if they are not stored yet: `grantledger run store` has "
                "stopped, or cannot reach Kafka or ClickHouse. `grantledger verify --from kafka` shows whether they "
                "were sealed."
            )
        yield "This does not prove:"
        for sentence in self.not_proved():
            yield f"  - {sentence}"
        yield "SOUND: everything checked is as it was sealed and signed" if self.sound else "TAMPERED"
