"""The key pair of the logs: who may read it, whether its halves fit, and whether it signs this ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...base.errors import GrantledgerError
from ...kafka.sealed_log import SealedLogProblem, SealedLogs, SealedLogStoppedError
from ...schemas.event import FINDINGS_TOPIC
from ..keys import load_log_keys, log_key_file, next_key_file
from ..settings import Settings
from .diagnosis import Diagnosis, Subject

ABOUT = Subject("key")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys on this machine.

    Attributes:
        private: the public half of the private key; None without a usable one.
        private_problem: why the private key cannot be used.
        public: the newest public key; None if it cannot be used.
        public_problem: why not.
        unfinished: the file with the next private key; None unless a change of the key was interrupted.
    """

    path: Path
    public_path: Path
    private: bytes | None = None
    private_problem: str = ""
    public: bytes | None = None
    public_problem: str = ""
    unfinished: Path | None = None


def check(found: Keys, *, needs_private: bool) -> list[Diagnosis]:
    """Return what is to be said about the keys on this machine.

    Args:
        needs_private: a process that signs runs here.
    """
    lines = []
    if found.private_problem:
        lines.append(ABOUT.problem(found.private_problem, "until then, `run seal` and `run anchor` do not start"))
    elif found.private is None and needs_private:
        lines.append(
            ABOUT.problem(f"there is no private key {found.path}, and a process that signs runs here",
                          "restore it from the backup before that process stops")
        )  # fmt: skip
    if found.public is None:
        lines.append(ABOUT.problem(found.public_problem, "every process that reads sealed topics needs it"))
    elif found.private is not None and found.private != found.public:
        lines.append(
            ABOUT.problem(
                f"{found.public_path} is not the public half of {found.path}",
                "restore both from the same backup (key_file, public_key_file)",
            )
        )
    if found.unfinished is not None:
        lines.append(
            ABOUT.warning(f"{found.unfinished} exists: a change of the key was interrupted",
                          "run `grantledger keys rotate` again; do not delete the file")
        )  # fmt: skip
    if lines:
        return lines
    if found.private is None:
        return [ABOUT.ok("no private key is on this machine: it does not sign")]
    return [ABOUT.ok(f"{found.path} is for its owner only, and {found.public_path} is its public half")]


def check_signature(refused: str | None, *, has_batches: bool, public_path: Path, later: str = "") -> list[Diagnosis]:
    """Return whether the key signed the last sealed batch of the findings.

    Args:
        refused: why no batch verifies; None if one does, or if there is none.
        later: why a record behind the last valid batch does not verify; empty without one.
    """
    if refused is not None:
        return [
            ABOUT.problem(
                f"{public_path} did not sign this ledger: {refused}", "restore the key pair, or correct the settings"
            )
        ]
    if not has_batches:
        return [ABOUT.unchecked("whether the key signs this ledger: nothing is sealed yet", "start `run seal`")]
    if later:
        return [
            ABOUT.problem(
                f"the end of access.findings.sealed does not verify: {later}",
                f"copy the present {public_path.name}, or see docs/runbooks/sealed_record_invalid.md",
            )
        ]
    return [ABOUT.ok("it signed the last sealed batch of access.findings")]


def read_keys(settings: Settings) -> Keys:
    """Read the keys on this machine."""
    private = public = None
    private_problem = public_problem = ""
    if settings.private_key_path.exists():
        try:
            private = log_key_file(settings).read().public_key
        except GrantledgerError as error:
            private_problem = str(error)
    try:
        public = load_log_keys(settings).newest
    except GrantledgerError as error:
        public_problem = str(error)
    following = next_key_file(settings).path
    return Keys(
        settings.private_key_path,
        settings.public_key_path,
        private,
        private_problem,
        public,
        public_problem,
        following if following.exists() else None,
    )


def examine_signature(logs: SealedLogs, public_path: Path) -> list[Diagnosis]:
    """Verify the last sealed batch of the findings. Raises KafkaUnavailableError."""
    problems: list[SealedLogProblem] = []
    try:
        last, refused = replace(logs, on_problem=problems.append).last(FINDINGS_TOPIC), None
    except SealedLogStoppedError as error:
        last, refused = None, str(error)
    later = problems[0].reason if problems else ""
    return check_signature(refused, has_batches=last is not None, public_path=public_path, later=later)
