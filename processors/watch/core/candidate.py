"""What a rule yields: something that is, was or will be wrong with an access, a request, a session or a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ....schemas.finding_rules import Severity


class Candidate(NamedTuple):
    """Something that is, was or will be wrong. Rule, key and deadline identify the finding."""

    rule: str  # of the finding; for a command to the enforcers one of ``commands.COMMANDS``
    key: str  # the access key of the grant, session or request, or the source
    deadline: int  # the deadline concerned, or 0 without one
    opens: int  # from when it is wrong; it is reported after that moment
    ends: int  # since when it is no longer wrong, or ``NEVER``; if that is not after ``opens``, nothing was wrong
    evidence_source: Mapping[str, object] | tuple[Any, ...]
    """The evidence, or a function and its arguments that return it: most candidates are never reported."""
    severity: Severity | None = None  # None for that of the policy

    @property
    def evidence(self) -> Mapping[str, object]:
        """The facts that a person needs."""
        if not isinstance(self.evidence_source, tuple):
            return self.evidence_source
        evidence: Mapping[str, object] = self.evidence_source[0](*self.evidence_source[1:])
        return evidence
