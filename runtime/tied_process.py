"""Child processes that cannot outlive this process, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# A small Python runs this and then becomes the program: a preexec_fn in a parent with threads can deadlock.
# PR_SET_PDEATHSIG (1) survives exec. The parent may have ended before it was set, hence getppid.
_TIED_EXEC = """
import ctypes, os, sys
parent, program, *arguments = sys.argv[1:]
if sys.platform == "linux":
    if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0 or os.getppid() != int(parent):
        sys.exit("the parent process is gone")
os.execv(program, [program, *arguments])
"""

# Flags and class paths that other programs left in the environment would change Java programs.
_JAVA_ENVIRONMENT = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"})

# The kernel ties a child to the thread that forked it: a thread that lives as long as this process forks them all.
_FORKER = ThreadPoolExecutor(1, "tied-process")


def start_tied(
    command: Sequence[str], *, cwd: Path, output: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that the kernel kills when this process ends. Only Linux has this tie.

    The child has its own session, so that Ctrl-C in the terminal does not reach it and we can stop it in order.

    Args:
        output: file for its output and errors; it is overwritten.
    """
    inherited = os.environ if environment is None else environment
    with output.open("wb") as file:
        return _FORKER.submit(
            subprocess.Popen,
            [sys.executable, "-I", "-S", "-c", _TIED_EXEC, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={name: value for name, value in inherited.items() if name not in _JAVA_ENVIRONMENT},
            start_new_session=True,
        ).result()


def stop_tied(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Send SIGTERM, then SIGKILL after some seconds. Returns whether the process ended before that."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True
