"""Files: locked by one process, and written as a whole."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from .errors import UsageError


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


def write_whole(path: Path, draft: Path, content: bytes, *, mode: int = 0o600, new: bool = False) -> None:
    """Write a file: when this returns, it is on disk, and after an error or a crash it is as it was.

    Args:
        draft: the name beside it under which it is written. No other process may use that name now.
        new: the file must not exist yet, else FileExistsError.
    """
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (os.link if new else os.replace)(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_working_folder() -> None:
    """Refuse a working folder whose ``config.xml`` the embedded ClickHouse would take for its own configuration.

    Raises:
        UsageError: there is one.
    """
    if (file := Path("config.xml").absolute()).exists():
        raise UsageError(
            f"the embedded ClickHouse would read {file} as its configuration: start in another working folder"
        )
