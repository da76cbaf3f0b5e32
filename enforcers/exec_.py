"""Plug-in ``exec``: a program on this machine, without a shell, with the command as JSON on its standard input.

Exit codes of ``command``: 0 taken away; 3 it was gone already; 75 not now, try again (EX_TEMPFAIL of sysexits.h);
anything else failed. Exit codes of ``read_back``: 3 gone; 0 still there; anything else unknown this time.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from .contract import Attempt, Presence, Result, Seen, Target
from .policy import ExecTarget, PolicyError

DONE, GONE, AGAIN = 0, 3, 75
PLAIN_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""All that a program sees of our environment, besides what the policy gives it."""


class ExecPlugin:
    """Runs the programs that the policy names."""

    kind = "exec"

    def __init__(self, target: ExecTarget) -> None:
        self._config = target
        missing = [name for name in target.pass_environment if name not in os.environ]
        if missing:
            raise PolicyError(f"pass_environment names {', '.join(missing)}, which the environment does not have")
        for path in {command[0] for command in (target.command, target.read_back) if command}:
            # Said now, and not when the first access is to be taken away.
            if not (Path(path).is_file() and os.access(path, os.X_OK)):
                raise PolicyError(f"{path} is no program that can be run")
            if Path(path).stat().st_mode & stat.S_IWOTH:  # what is in it would run with our credentials
                raise PolicyError(f"{path} can be written by everybody: chmod o-w")
        passed = {name: os.environ[name] for name in target.pass_environment}
        self._environment = PLAIN_ENVIRONMENT | target.environment | passed

    def revoke(self, target: Target) -> Attempt:
        """Run ``command``."""
        try:
            code = self._run(self._config.command, target)
        except subprocess.TimeoutExpired:
            return Attempt(Result.again, f"the program took longer than {self._config.timeout_seconds:g} s: killed")
        except OSError as error:
            # It was there at the start: it is being replaced, or the machine is short of something.
            return Attempt(Result.again, f"the program cannot be run: {error.strerror}")
        if code in (DONE, GONE):
            return Attempt(Result.accepted, f"exit code {code}: {'taken away' if code == DONE else 'gone already'}")
        if code == AGAIN:
            return Attempt(Result.again, f"exit code {code}: try again")
        return Attempt(Result.failed, f"exit code {code}" if code > 0 else f"ended by signal {-code}")

    def read_back(self, target: Target) -> Seen:
        """Run ``read_back``, where the policy has it."""
        if not self._config.read_back:
            return Seen(Presence.unreadable, "the policy has no program to read back")
        try:
            code = self._run(self._config.read_back, target)
        except subprocess.TimeoutExpired:
            return Seen(Presence.unknown, "the program that reads back took too long: killed")
        except OSError as error:
            return Seen(Presence.unknown, f"the program that reads back cannot be run: {error.strerror}")
        presence = {GONE: Presence.gone, DONE: Presence.still_there}.get(code, Presence.unknown)
        return Seen(presence, f"the program that reads back ended with {code}")

    def _run(self, command: tuple[str, ...], target: Target) -> int:
        """Return the exit code, minus the signal where one ended it.

        The program's output goes nowhere: it may hold what must not be logged, and we decide by the exit code alone.
        """
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=self._environment,
            start_new_session=True,
        ) as process:
            try:
                process.communicate(json.dumps(target.as_json(), sort_keys=True).encode(), self._config.timeout_seconds)
            except BaseException:
                # The group is its own, and its leader not reaped yet, so its number cannot belong to anybody else.
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                raise
            return process.returncode
