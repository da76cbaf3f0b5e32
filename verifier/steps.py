"""The numbered steps of verification. docs/ledger.md, "How to verify", explains each one under the same number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["changed", "behind", "key", "deployment"]
"""What a problem shows: ``changed`` evidence; evidence that is not stored here (``behind``), which an outside anchor
covers; a note without a signature by the given ``key``; evidence of another ``deployment`` than the given one."""


@dataclass(frozen=True, slots=True)
class VerifyStep:
    """One step: the report's counter of its checks, and the names of those checks in problems."""

    number: int
    name: str
    unit: str
    checks: tuple[str, ...]


STEPS = (
    VerifyStep(1, "Format", "entries", ("batch", "format", "definition")),
    VerifyStep(2, "Genesis", "logs", ("origin", "genesis")),
    VerifyStep(3, "Order", "entries", ("index", "offset")),
    VerifyStep(4, "Payload", "entries", ("payload", "erased")),
    VerifyStep(5, "Leaf", "entries", ("leaf",)),
    VerifyStep(6, "Chain", "entries", ("chain",)),
    VerifyStep(7, "Checkpoint", "checkpoints", ("checkpoint", "log_key")),
    VerifyStep(8, "Batch", "checkpoints", ("sealed_at",)),
    VerifyStep(9, "Schemas", "schemas", ("schema",)),
    VerifyStep(10, "Decoded columns", "entries", ("columns",)),
    VerifyStep(11, "Anchors", "anchors", ("anchor", "anchor_index")),
    VerifyStep(12, "Anchored heads", "anchors", ("truncated", "anchored_head", "remembered_head")),
    VerifyStep(13, "Outside anchors", "outside_anchors", ("outside_anchor",)),
    VerifyStep(14, "States", "states", ("state",)),
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
    def step(self) -> VerifyStep:
        """The step that found it."""
        return _STEP_OF[self.check]
