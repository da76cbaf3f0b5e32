"""The data folder: for its owner only, and one process of each kind at a time."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..base.files import lock_file
from .settings import SettingsError

FOLDERS = (
    "run", "keys", "logs", "clickhouse", "clickhouse.tmp", "clickhouse.queries", "kafka", "alerts", "follow", "gateway",
    "tls", "published",
)  # fmt: skip
_MARKS = ("keys", "run", "kafka", "clickhouse", "deployment")
"""Entries that show that an existing folder is a data folder, not a home folder."""


def make_folder(path: Path) -> None:
    """Create a folder of the data folder, for the owner only.

    Raises:
        SettingsError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"{path} cannot be created: {error.strerror} (data_dir, --data)") from error


def close_to_others(data_dir: Path) -> None:
    """Take the access of other users from an existing data folder: an earlier version, or a copy, may be open.

    The data folder itself keeps its mode if it contains anything else, such as a project or a home.
    """
    try:
        entries = {path.name for path in data_dir.iterdir()}
    except OSError:  # there is none yet, or this process is in a sandbox that must not look
        return
    ours = all(name in FOLDERS or (data_dir / name).is_file() for name in entries)
    folders = [data_dir] if ours and not entries.isdisjoint(_MARKS) else []
    for path in (*folders, *(data_dir / name for name in FOLDERS if name in entries)):
        with suppress(OSError):  # a folder of another user, such as a mounted volume
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode) and stat.S_IMODE(mode) & 0o077 and not path.is_symlink():
                path.chmod(0o700)


@contextmanager
def only_process(data_dir: Path, name: str) -> Iterator[None]:
    """Hold the place of the process of this name in a data folder. The kernel frees it however the process ends.

    Raises:
        SettingsError: another process has it. Its files are left alone.
    """
    try:
        lock = lock_file(data_dir / "run" / f"{name}.lock")
    except BlockingIOError:
        raise SettingsError(
            f"`run {name}` is already running for the data folder {data_dir}; another one needs a data folder of "
            "its own (GRANTLEDGER_DATA_DIR)"
        ) from None
    with lock:
        yield
