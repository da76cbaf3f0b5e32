"""Commands and the sealed requests that justify them."""

from __future__ import annotations

from datetime import datetime

from grantledger.enforcers.command_matcher import CommandMatcher

from .test_enforce_command_rules import HOUR, NOON, command


class Findings:
    """A log of findings: values with their times; ``sealed`` of them are sealed, and ``open_below`` hides the rest."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, datetime]] = []
        self.sealed = self.read = 0
        self.complete = True
        self.looks = 0

    def update(self) -> None:
        self.read = self.sealed

    def requested(self, value: bytes) -> datetime | None:
        return next((at for found, at in self.log[: self.read] if found == value), None)

    def end(self) -> int:
        return len(self.log)

    def has_read_below(self, offset: int) -> bool:
        self.looks += 1
        return self.complete and self.read >= offset


def offsets(matcher: CommandMatcher) -> list[tuple[int, datetime | None]]:
    return [(offset, requested) for _, offset, requested in matcher.matched()]


def test_the_age_of_a_command_counts_from_its_first_sealed_request() -> None:
    findings = Findings()
    findings.log, findings.sealed = [(b"one", NOON), (b"one", NOON + HOUR)], 2
    matcher = CommandMatcher(findings)
    matcher.add(command(), 7, b"one")
    assert offsets(matcher) == [(7, NOON)] and not matcher


def test_a_command_waits_for_the_sealer_and_no_longer() -> None:
    findings = Findings()
    matcher = CommandMatcher(findings)
    findings.log = [(b"other", NOON), (b"one", NOON)]
    matcher.add(command(), 7, b"one")
    matcher.add(command("g2"), 8, b"forged")
    assert offsets(matcher) == [] and len(matcher) == 2
    findings.sealed = 1
    findings.log += [(b"later", NOON)] * 100  # they are not waited for
    assert offsets(matcher) == []
    findings.sealed = 2
    assert offsets(matcher) == [(7, NOON), (8, None)] and not matcher


def test_a_forged_command_delays_no_other() -> None:
    findings = Findings()
    matcher = CommandMatcher(findings)
    findings.log, findings.sealed, findings.complete = [(b"one", NOON)], 1, False  # a transaction is open
    matcher.add(command(), 7, b"forged")
    matcher.add(command(), 8, b"one")
    assert offsets(matcher) == [(8, NOON)] and len(matcher) == 1
    findings.complete = True
    assert offsets(matcher) == [(7, None)]


def test_no_content_but_the_requested_one_is_carried_out() -> None:
    """The same grant and deadline are not enough: subject, resource and entitlement are part of the record."""
    findings = Findings()
    findings.log, findings.sealed = [(b"one", NOON)], 1
    matcher = CommandMatcher(findings)
    matcher.add(command(), 7, b"One")
    assert offsets(matcher) == [(7, None)]
