"""The verdicts of a verification, each with a value for programs, an exit code and a sentence for people."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """The result of a verification. docs/ledger.md, "Verdicts", explains each one."""

    sound = "sound"
    sound_alone = "sound_compared_with_nothing_outside"
    behind = "behind"
    tampered = "tampered"
    could_not_check = "could_not_check"

    @property
    def exit_code(self) -> int:
        """The exit code of ``grantledger verify``."""
        return _MEANINGS[self].exit_code

    @property
    def sentence(self) -> str:
        """The last line of the report, which begins with the verdict."""
        return _MEANINGS[self].sentence


class _Meaning(NamedTuple):
    exit_code: int
    sentence: str


_MEANINGS = {
    Verdict.sound: _Meaning(0, "SOUND: everything checked is as it was sealed and signed"),
    Verdict.sound_alone: _Meaning(
        4,
        "SOUND, COMPARED WITH NOTHING OUTSIDE: everything checked is as it was sealed and signed. Without anchors from "
        "outside, a removed end of a log goes unnoticed",
    ),
    Verdict.behind: _Meaning(
        3,
        "BEHIND: everything stored is as it was sealed and signed, but entries that anchors from outside cover are "
        "not stored here. Run the store and verify again: entries that it lacks after an hour were removed",
    ),
    Verdict.tampered: _Meaning(1, "TAMPERED"),
    Verdict.could_not_check: _Meaning(2, "COULD NOT CHECK"),
}
EXIT_COULD_NOT_CHECK = _MEANINGS[Verdict.could_not_check].exit_code
