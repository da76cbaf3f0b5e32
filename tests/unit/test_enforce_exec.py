"""The plug-in that runs programs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from grantledger.base.toml import ConfigError
from grantledger.enforcers.contract import AttemptStatus, Presence
from grantledger.enforcers.enforcement_policy import ExecTarget
from grantledger.enforcers.exec_ import ExecPlugin
from support.waiting import wait_for

from .test_enforce_command_rules import command


def plugin(text: str, **fields: Any) -> ExecPlugin:
    given = {"plugin": "exec", "command": [sys.executable, "-I", "-c", text]}
    return ExecPlugin(ExecTarget.model_validate(given | fields))


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (0, AttemptStatus.accepted),
        (3, AttemptStatus.accepted),
        (75, AttemptStatus.retry),
        (1, AttemptStatus.failed),
        (127, AttemptStatus.failed),
    ],
)
def test_meaning_of_exit_codes(code: int, result: AttemptStatus) -> None:
    attempt = plugin(f"raise SystemExit({code})").revoke(command())
    assert attempt.status is result and f"exit code {code}" in attempt.detail


def test_ended_by_a_signal_is_failed() -> None:
    attempt = plugin("import os; os.kill(os.getpid(), 15)").revoke(command())
    assert (attempt.status, attempt.detail) == (AttemptStatus.failed, "ended by signal 15")


@pytest.mark.parametrize(("code", "presence"), [(3, "absent"), (0, "present"), (1, "unknown"), (75, "unknown")])
def test_meaning_of_read_back_exit_codes(code: int, presence: str) -> None:
    read_back = [sys.executable, "-I", "-c", f"raise SystemExit({code})"]
    assert plugin("", read_back=read_back).read_back(command()).presence is Presence(presence)


def test_without_a_program_it_cannot_be_read_back() -> None:
    assert plugin("").read_back(command()).presence is Presence.unreadable


def test_the_program_gets_the_command_and_little_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("PASSED", "on")
    out = tmp_path / "out"
    text = (
        "import json, os, sys; json.dump({'in': json.load(sys.stdin), 'env': dict(os.environ), 'cwd': os.getcwd(),"
        f" 'argv': sys.argv}}, open({str(out)!r}, 'w'))"
    )
    attempt = plugin(text, environment={"GIVEN": "yes"}, pass_environment=["PASSED"]).revoke(command())
    assert attempt.status is AttemptStatus.accepted
    got = json.loads(out.read_text())
    assert got["in"] == command().as_json() and got["cwd"] == "/" and got["argv"] == ["-c"]
    seen = {name: value for name, value in got["env"].items() if name != "LC_CTYPE"}  # Python's own doing
    assert seen == {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "GIVEN": "yes", "PASSED": "on"}


def test_nothing_goes_through_a_shell(tmp_path: Path) -> None:
    harmless = tmp_path / "harmless"
    found = ExecPlugin(ExecTarget(plugin="exec", command=("/bin/echo", f"; touch {harmless}", "$(false)")))
    assert found.revoke(command()).status is AttemptStatus.accepted
    assert not harmless.exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_too_long_ends_the_program_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(100)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "time.sleep(100)"
    )
    for seconds in (1.5, 6.0, 24.0):  # it must have got as far as starting its child
        attempt = plugin(text, timeout_seconds=seconds).revoke(command())
        assert attempt.status is AttemptStatus.retry
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
    own, child = (int(pid) for pid in pids.read_text().split())
    assert os.getpid() not in (own, child)
    wait_for(lambda: not alive(own) and not alive(child), "both are gone")


def test_a_program_that_does_not_read_its_input_does_not_block() -> None:
    assert plugin("raise SystemExit(0)").revoke(command("g" * 1_000_000)).status is AttemptStatus.accepted


def test_its_output_is_discarded(capfd: pytest.CaptureFixture[str]) -> None:
    attempt = plugin("import sys; print('hunter2'); sys.exit('hunter2')").revoke(command())
    assert attempt.status is AttemptStatus.failed and "hunter2" not in attempt.detail + "".join(capfd.readouterr())


def test_a_world_writable_program_is_rejected(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod o-w"):
        ExecPlugin(ExecTarget.model_validate({"plugin": "exec", "command": [str(program)]}))
    program.chmod(0o775)
    ExecPlugin(ExecTarget.model_validate({"plugin": "exec", "command": [str(program)]}))


def test_a_missing_program_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "plain"):
        for words in ({"command": [str(path)]}, {"command": ["/bin/true"], "read_back": [str(path)]}):
            with pytest.raises(ConfigError, match=f"{path} is not an executable program"):
                ExecPlugin(ExecTarget.model_validate({"plugin": "exec"} | words))


def test_a_program_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    found = ExecPlugin(ExecTarget(plugin="exec", command=(str(program),), read_back=(str(program),)))
    program.rename(tmp_path / "away")
    assert found.revoke(command()).status is AttemptStatus.retry
    assert found.read_back(command()).presence is Presence.unknown
    (tmp_path / "away").rename(program)
    assert found.revoke(command()).status is AttemptStatus.accepted


def test_invalid_configurations_are_rejected_at_the_start() -> None:
    with pytest.raises(ValueError, match="absolute path"):
        ExecTarget(plugin="exec", command=("revoke.sh",))
    with pytest.raises(ValueError, match="command"):
        ExecTarget(plugin="exec", command=())
    with pytest.raises(ValueError, match="NUL"):
        ExecTarget(plugin="exec", command=("/bin/echo", "a\0b"))
    for name, value in (("", "x"), ("A=B", "x"), ("A", "x\0")):
        with pytest.raises(ValueError, match="is not possible in an environment"):
            ExecTarget(plugin="exec", command=("/bin/echo",), environment={name: value})
    with pytest.raises(ConfigError, match="NOT_THERE_4711"):
        plugin("", pass_environment=["NOT_THERE_4711"])
