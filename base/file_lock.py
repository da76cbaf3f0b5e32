"""The lock of a file: one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO


def lock_file(path: Path) -> BinaryIO:
    """Create the file if there is none, and lock it until it is closed. The kernel frees it however the process ends.

    Raises:
        BlockingIOError: another process has locked it.
    """
    # Write-only: a sandbox may let a process write the folder and not read it.
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
