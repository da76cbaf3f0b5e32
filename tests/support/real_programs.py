"""Programs that a test runs if they are installed: as children of the test, over folders and ports of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .waiting import wait_for

SBIN = "/usr/sbin:/sbin"


def needed(program: str, package: str | None = None) -> str:
    """Return where a program is; skip the test if it is not installed. ``package``: of Debian, if it has one."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")
    if found is None:
        hint = f" (Debian: apt-get install {package})" if package else ""
        pytest.skip(f"the program {program} is not installed{hint}")
    return found


@contextmanager
def rsyslog(folder: Path, configuration: str) -> Iterator[Path]:
    """Run rsyslogd with this configuration. The result is the file of its own messages.

    It takes syslog at the Unix socket ``log.sock`` in ``folder``, and is ready when it exists.
    """
    program = needed("rsyslogd", "rsyslog")
    own, socket, file = folder / "rsyslog.own", folder / "log.sock", folder / "rsyslog.conf"
    file.write_text(
        f'global(workDirectory="{folder}")\n'
        'module(load="imuxsock" SysSock.Use="off")\n'
        f'input(type="imuxsock" Socket="{socket}")\n'
        f"{configuration}\n"
    )
    with child([program, "-n", "-f", file, "-i", folder / "rsyslog.pid"], own, socket.exists):
        yield own


@contextmanager
def child(
    command: Sequence[str | Path], log: Path, ready: Callable[[], bool], folder: Path | None = None
) -> Iterator[None]:
    """Run a program that ends at SIGTERM, in a folder. What it prints is in ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        wait_for(lambda: ready() or process.poll() is not None, f"{command[0]} is ready", pause=0.02)
        assert process.poll() is None, log.read_text("utf-8", "replace")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
