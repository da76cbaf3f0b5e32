"""Supervised processes: a crash loop is in trouble until the process has been healthy for a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from grantledger.runtime import children as module
from grantledger.runtime.children import Child, ChildSpec


class FakeProcess:
    """Runs until the test ends it."""

    def __init__(self, _command: list[str], **_how: object) -> None:
        self.returncode: int | None = None
        self.pid = 1

    def poll(self) -> int | None:
        return self.returncode


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "start_tied", FakeProcess)
    return clock


def die(child: Child, code: int, message: str) -> None:
    child.log_path.write_text(f"grantledger: {message}\n")
    assert child._process is not None
    child._process.returncode = code


def test_a_crash_loop_is_in_trouble_until_a_healthy_minute(clock: Clock, tmp_path: Path) -> None:
    child = Child(ChildSpec("store", ("run", "store")), tmp_path, {})
    child.start()
    assert child.trouble is None
    for times in ("once", "2 times"):
        die(child, 1, "disk full")
        child.restart_if_failed()
        assert child.trouble == "store is down: disk full"
        clock.now += 20.0
        child.restart_if_failed()
        assert child.alive() and child.trouble == f"store was restarted {times}: disk full"
    clock.now += 59.0
    assert child.trouble is not None
    clock.now += 2.0
    assert child.trouble is None


def test_a_wrong_setting_is_not_restarted(clock: Clock, tmp_path: Path) -> None:
    child = Child(ChildSpec("seal", ("run", "seal")), tmp_path, {})
    child.start()
    die(child, 2, "no key")
    child.restart_if_failed()
    clock.now += 1000.0
    child.restart_if_failed()
    assert not child.alive() and child.trouble == "seal has stopped: no key"


def test_a_process_that_ends_is_done_only_if_it_may(clock: Clock, tmp_path: Path) -> None:
    for ends in (True, False):
        child = Child(ChildSpec("traffic", ("demo",), ends=ends), tmp_path, {})
        child.start()
        die(child, 0, "")
        for _ in range(2):
            child.restart_if_failed()
            clock.now += 1.0
        assert (child.trouble is None, child.alive()) == (ends, not ends)
