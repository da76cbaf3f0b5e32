"""What a verification found, and how logs and anchors come together in it, wherever the evidence was read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..ledger.anchor import Anchor, AnchorError, check_anchor
from .logs import OriginVerifier, Problem, check_covered, verify_anchors


@dataclass(slots=True)
class Report:
    """What a verification found. ``sound`` is false with the first problem."""

    source: str
    logs: int = 0
    entries: int = 0
    checkpoints: int = 0
    anchors: int = 0
    outside_anchors: int = 0
    outside_only: int = 0
    """Anchors written outside that the store does not have (yet): it gets an anchor last of all."""
    behind: int = 0
    """Entries at the end of the logs that anchors outside cover and a store at work, waited for, did not take in."""
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether everything that was read is as it was signed."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {"sound": self.sound} | asdict(self)


def conclude(report: Report, verifiers: dict[str, OriginVerifier]) -> None:
    """Finish every log and take what it found into the report."""
    for origin, verifier in verifiers.items():
        verifier.finish()
        verifier.problem = verifier.problem or _check_epoch(origin, verifier, verifiers, report.source)
        report.logs += 1
        report.checkpoints += verifier.checkpoints
        if verifier.problem is not None:
            report.problems.append(verifier.problem)
        else:
            report.heads[origin] = (verifier.frontier.size, verifier.frontier.root().hex())


def _check_epoch(
    origin: str, verifier: OriginVerifier, verifiers: dict[str, OriginVerifier], source: str
) -> Problem | None:
    """Compare what a genesis binds with the last head of the epoch before; epoch 0 binds nothing."""
    log, _, number = origin.rpartition("/")
    genesis = verifier.genesis
    bound = (genesis.previous_size, genesis.previous_root)
    if not number.isdigit() or int(number) == 0:
        return None if bound == (0, bytes(32)) else Problem(origin, 0, "genesis", "epoch 0 names an epoch before it")
    before = verifiers.get(f"{log}/{int(number) - 1}")
    if before is None:  # an epoch may begin because Kafka lost the one before; the store keeps them all
        return None if source == "kafka" else Problem(origin, 0, "genesis", "the epoch before it is not here")
    size = max(before.roots)
    if before.problem is not None or bound == (size, before.roots[size]):
        return None
    return Problem(origin, 0, "genesis", "its genesis does not bind the last head of the epoch before")


def check_anchors(
    report: Report,
    anchors: list[Anchor],
    outside: list[Anchor],
    key: bytes,
    verifiers: dict[str, OriginVerifier],
    *,
    origin: str,
    complete: bool = False,
) -> None:
    """Check the anchors here, then that those outside say the same.

    Args:
        origin: name of the anchor log.
        complete: every anchor outside must be here as well.
    """
    roots = {log: verifier.roots for log, verifier in verifiers.items()}
    skip = frozenset(log for log, verifier in verifiers.items() if verifier.problem is not None)
    report.anchors, problem = verify_anchors(anchors, key, roots, skip, origin)
    if problem is not None:
        report.problems.append(problem)
    inside = {anchor.index: anchor for anchor in anchors if anchor.origin == origin}
    for anchor in outside:
        known = inside.get(anchor.index)
        problem = _check_outside(anchor, known, origin, key) or check_covered(anchor, roots, skip)
        if problem is None and known is None and complete:
            message = f"anchor {anchor.index}, which was written outside, is missing"
            problem = Problem(origin, anchor.index, "anchor_index", message)
        if problem is not None:
            if problem not in report.problems:
                report.problems.append(problem)
            return
        report.outside_anchors += 1
        report.outside_only += known is None


def _check_outside(anchor: Anchor, known: Anchor | None, origin: str, key: bytes) -> Problem | None:
    try:
        check_anchor(anchor, key)
    except AnchorError as error:
        return Problem(origin, anchor.index, "outside_anchor", f"in the file written outside, {error}")
    if anchor.origin != origin:
        return Problem(origin, anchor.index, "outside_anchor", f"the anchor written outside is one of {anchor.origin}")
    if known is not None and known != anchor:
        message = f"anchor {anchor.index} written outside is not the one here: two histories"
        return Problem(origin, anchor.index, "anchor", message)
    return None
