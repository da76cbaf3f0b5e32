"""What a check says: a line with its state, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ...base.errors import EXIT_DEPENDENCY, EXIT_OK

EXIT_WARNINGS = 4
"""No problem, but a warning, or something that could not be checked."""


class State(StrEnum):
    """How it is with the thing that a check looked at."""

    ok = "ok"
    warning = "warning"
    problem = "problem"
    unchecked = "not checked"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line about one thing. ``action``: what to do about it; empty if it is ok."""

    subject: str
    state: State
    text: str
    action: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """Makes the lines about one subject."""

    name: str

    def ok(self, text: str) -> Diagnosis:
        """It is as it must be."""
        return Diagnosis(self.name, State.ok, _line(text))

    def warning(self, text: str, action: str) -> Diagnosis:
        """It works, but is weaker than it must be."""
        return Diagnosis(self.name, State.warning, _line(text), _line(action))

    def problem(self, text: str, action: str) -> Diagnosis:
        """It does not work, or endangers the ledger."""
        return Diagnosis(self.name, State.problem, _line(text), _line(action))

    def unchecked(self, text: str, action: str = "") -> Diagnosis:
        """It could not be found out."""
        return Diagnosis(self.name, State.unchecked, _line(text), _line(action))


def exit_code(found: Iterable[Diagnosis]) -> int:
    """Return the exit code of the command."""
    states = {one.state for one in found}
    if State.problem in states:
        return EXIT_DEPENDENCY
    return EXIT_WARNINGS if states - {State.ok} else EXIT_OK


def _line(text: str) -> str:
    return " ".join(text.split())
