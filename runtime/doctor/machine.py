"""This machine: the data folder, its disk, and the sandbox of the store."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from .. import landlock
from ..settings import Settings
from ..store_start import OLDEST_VERSION
from .diagnosis import Diagnosis, Subject

FOLDER, SANDBOX = Subject("data folder"), Subject("sandbox")
GIB = 1 << 30
LEAST_BYTES, FEW_BYTES = GIB // 2, 5 * GIB
FEW_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Folder:
    """The data folder.

    Attributes:
        mode: its permission bits; None if there is no such folder.
        reachable: this user may read and write it.
        free, total: bytes of its file system.
    """

    path: Path
    mode: int | None
    reachable: bool = True
    free: int = 0
    total: int = 1


def check_folder(found: Folder) -> list[Diagnosis]:
    """Return what is to be said about the data folder and its disk."""
    if found.mode is None:
        return [FOLDER.problem(f"{found.path} does not exist", "name the data folder with --data (data_dir)")]
    if not found.reachable:
        return [
            FOLDER.problem(
                f"{found.path} cannot be read and written by this user",
                "run it as the user of the processes, or: chown",
            )
        ]
    lines = []
    if found.mode & 0o077:
        lines.append(FOLDER.warning(f"other users can look into {found.path}", f"chmod 700 {found.path}"))
    free = f"{found.free / GIB:,.1f} GiB of {found.total / GIB:,.1f} GiB are free for {found.path}"
    what = "make room: Kafka, ClickHouse or the spools there stop when the disk is full; nothing that is sealed is lost"
    if found.free < LEAST_BYTES:
        lines.append(FOLDER.problem(free, what))
    elif found.free < FEW_BYTES or found.free < FEW_SHARE * found.total:
        lines.append(FOLDER.warning(free, what))
    return lines or [FOLDER.ok(free)]


def check_sandbox(version: int, *, embedded: bool, serves_here: bool) -> list[Diagnosis]:
    """Return what is to be said about Landlock.

    Args:
        version: of the kernel's interface; 0 if there is none.
        embedded: the store has the embedded engine.
        serves_here: this machine has a store, or may start one.
    """
    if not embedded:
        return [SANDBOX.ok("not needed: the store is on a ClickHouse server, whose users and roles apply")]
    if not serves_here:
        return [SANDBOX.ok("not needed: no store is on this machine")]
    if version >= OLDEST_VERSION:
        return [SANDBOX.ok(f"the kernel has Landlock, version {version}: the store runs in a sandbox")]
    return [
        SANDBOX.warning(
            "the kernel has no Landlock, so the store runs without a sandbox: a hole in the SQL gate could read the "
            "files of its user",
            "use Linux 5.19 or later with Landlock enabled, or a user of its own for the store",
        )
    ]


def examine(settings: Settings) -> list[Diagnosis]:
    """Look at this machine."""
    sandbox = check_sandbox(
        landlock.abi(), embedded=not settings.clickhouse_url, serves_here=settings.store_path.exists()
    )
    return [*check_folder(_folder(settings.data_dir.resolve())), *sandbox]


def _folder(path: Path) -> Folder:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return Folder(path, None)
    except OSError:
        return Folder(path, 0, reachable=False)
    usage = shutil.disk_usage(path)
    is_ours = all((path / name).exists() for name in ("run", "keys"))  # else it may be a project or a home
    reachable = os.access(path, os.R_OK | os.W_OK | os.X_OK)
    return Folder(path, mode if is_ours else mode & 0o700, reachable, usage.free, usage.total)
