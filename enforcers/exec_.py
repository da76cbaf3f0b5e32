"""Plug-in ``exec``: runs a program on this machine, without a shell, with the command as JSON on its standard input.

Exit codes of ``command``: 0 removed; 3 was gone already; 75 retry later (EX_TEMPFAIL of sysexits.h); others failed.
Exit codes of ``read_back``: 3 absent; 0 present; others unknown.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from ..base.toml import ConfigError
from .contract import Attempt, AttemptStatus, Observation, Presence, RevokeCommand
from .enforcement_policy import ExecTarget

DONE, GONE, RETRY = 0, 3, 75
PLAIN_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""The whole environment of a program, besides the variables in the policy."""


class ExecPlugin:
    """Runs the programs that the policy names."""

    kind = "exec"

    def __init__(self, target: ExecTarget, key: str = "targets") -> None:
        self._config = target
        missing = [name for name in target.pass_environment if name not in os.environ]
        if missing:
            raise ConfigError(f"{key}.pass_environment: not in the environment: {', '.join(missing)}")
        for path in {command[0] for command in (target.command, target.read_back) if command}:
            # Fail at the start, not at the first command.
            if not (Path(path).is_file() and os.access(path, os.X_OK)):
                raise ConfigError(f"{key}: {path} is not an executable program")
            if Path(path).stat().st_mode & stat.S_IWOTH:  # anybody could run programs with our credentials
                raise ConfigError(f"{key}: anybody can write {path}; run: chmod o-w {path}")
        passed = {name: os.environ[name] for name in target.pass_environment}
        self._environment = PLAIN_ENVIRONMENT | target.environment | passed

    def revoke(self, command: RevokeCommand) -> Attempt:
        """Run ``command``."""
        code = self._run(self._config.command, command)
        if isinstance(code, str):
            return Attempt(AttemptStatus.retry, f"the program {code}")
        if code in (DONE, GONE):
            return Attempt(AttemptStatus.accepted, f"exit code {code}: {'removed' if code == DONE else 'gone already'}")
        if code == RETRY:
            return Attempt(AttemptStatus.retry, f"exit code {code}: retry later")
        return Attempt(AttemptStatus.failed, f"exit code {code}" if code > 0 else f"ended by signal {-code}")

    def read_back(self, command: RevokeCommand) -> Observation:
        """Run ``read_back`` if the policy has it."""
        if not self._config.read_back:
            return Observation(Presence.unreadable, "the policy has no program to read back")
        code = self._run(self._config.read_back, command)
        if isinstance(code, str):
            return Observation(Presence.unknown, f"the read_back program {code}")
        presence = {GONE: Presence.absent, DONE: Presence.present}.get(code, Presence.unknown)
        return Observation(presence, f"the read_back program exited with {code}")

    def _run(self, program: tuple[str, ...], command: RevokeCommand) -> int | str:
        """Return the exit code, a negative signal number, or why there is none."""
        try:
            return self._exit_code(program, command)
        except subprocess.TimeoutExpired:
            return f"took longer than {self._config.timeout_seconds:g} s: killed"
        except OSError as error:
            # It was executable at the start: it is being replaced, or the machine is out of resources.
            return f"cannot be run: {error.strerror}"

    def _exit_code(self, program: tuple[str, ...], command: RevokeCommand) -> int:
        # The output is discarded, because it may contain secrets.
        with subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=self._environment,
            start_new_session=True,
        ) as process:
            try:
                process.communicate(
                    json.dumps(command.as_json(), sort_keys=True).encode(), self._config.timeout_seconds
                )
            except BaseException:
                # The leader of its process group is not reaped yet, so the group id cannot have been reused.
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                raise
            return process.returncode
