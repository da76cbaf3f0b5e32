"""Programs that a test runs if they are installed: as children of the test, over folders and ports of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .waiting import wait_for

SBIN = "/usr/sbin:/sbin"


def needed(program: str, package: str) -> str:
    """Return where a program is; skip the test if it is not installed."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")
    if found is None:
        pytest.skip(f"the program {program} is not installed (Debian: apt-get install {package})")
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
    with own.open("wb") as output:
        process = subprocess.Popen(
            [program, "-n", "-f", file, "-i", folder / "rsyslog.pid"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: socket.exists() or process.poll() is not None, "rsyslog has started", pause=0.02)
        assert process.poll() is None, own.read_text("utf-8", "replace")
        yield own
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
