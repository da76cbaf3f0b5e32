"""The numbered steps of verification. docs/ledger.md, "How to verify", explains each one under the same number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["changed", "behind", "key", "deployment"]
"""What a problem shows: ``changed`` evidence; evidence that is not stored here (``behind``), which an outside anchor
covers; a note without a signature by the given ``key``; evidence of another ``deployment`` than the given one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the report's counter of its checks, and the names of those checks in problems."""

    number: int
    name: str
    unit: str
    checks: tuple[str, ...]


STEPS = (
    Step(1, "Format", "entries", ("batch", "format", "definition")),
    Step(2, "Genesis", "logs", ("origin", "genesis")),
    Step(3, "Order", "entries", ("index", "offset")),
    Step(4, "Payload", "entries", ("payload", "erased")),
    Step(5, "Leaf", "entries", ("leaf",)),
    Step(6, "Chain", "entries", ("chain",)),
    Step(7, "Checkpoint", "checkpoints", ("checkpoint",)),
    Step(8, "Batch", "checkpoints", ("sealed_at",)),
    Step(9, "Schemas", "schemas", ("schema",)),
    Step(10, "Decoded columns", "entries", ("columns",)),
    Step(11, "Anchors", "anchors", ("anchor", "anchor_index")),
    Step(12, "Anchored heads", "anchors", ("truncated", "anchored_head", "remembered_head")),
    Step(13, "Outside anchors", "outside_anchors", ("outside_anchor",)),
    Step(14, "States", "states", ("state",)),
)
_STEP_OF = {check: step for step in STEPS for check in step.checks}


@dataclass(frozen=True, slots=True)
class Problem:
    """Evidence that differs from the signed evidence.

    Attributes:
        origin: the log, or the Kafka record if the log cannot be named.
        index: the first entry concerned; None if the problem concerns the whole log.
        check: the failed check, one of the names in ``STEPS``.
        kind: only ``changed`` proves tampering on its own.
    """

    origin: str
    index: int | None
    check: str
    message: str
    kind: Kind = "changed"

    @property
    def step(self) -> Step:
        """The step that found it."""
        return _STEP_OF[self.check]
