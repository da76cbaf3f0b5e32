"""Landlock: the kernel denies this process, and all its future threads and programs, everything that no rule allows.

The kernel's own interface (landlock(7), include/uapi/linux/landlock.h), through system calls. Its versions 1 to 7 are
handled: what an older kernel cannot restrict stays unrestricted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from enum import IntFlag
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_RULE, _PORT_RULE = 1, 2
_PR_SET_NO_NEW_PRIVS: Final = 38
_SCOPES: Final = 3  # abstract Unix sockets and signals
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6


class FileAccess(IntFlag):
    """Rights to files and folders."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class PortAccess(IntFlag):
    """Rights to TCP ports."""

    BIND = 1 << 0
    CONNECT = 1 << 1


READ: Final = FileAccess.READ_FILE | FileAccess.READ_DIR
WRITE: Final = (
    READ
    | FileAccess.WRITE_FILE
    | FileAccess.TRUNCATE
    | FileAccess.REMOVE_DIR
    | FileAccess.REMOVE_FILE
    | FileAccess.MAKE_DIR
    | FileAccess.MAKE_REG
    | FileAccess.MAKE_SYM
    | FileAccess.REFER
)
_OF_FILES: Final = (
    FileAccess.EXECUTE | FileAccess.WRITE_FILE | FileAccess.READ_FILE | FileAccess.TRUNCATE | FileAccess.IOCTL_DEV
)
_NEWER_RIGHTS: Final = {FileAccess.REFER: 2, FileAccess.TRUNCATE: 3, FileAccess.IOCTL_DEV: 5}


def abi() -> int:
    """Return the version of the kernel's interface; 0 where there is none, or where it is disabled."""
    if sys.platform != "linux":
        return 0
    version: int = _libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(version, 0)


def handled_files(version: int) -> FileAccess:
    """Return the rights to files that a version can deny."""
    rights = FileAccess(0)
    for right in FileAccess:
        if _NEWER_RIGHTS.get(right, 1) <= version:
            rights |= right
    return rights


def restrict(files: Iterable[tuple[Path, FileAccess]], ports: Mapping[int, PortAccess]) -> int:
    """Deny this thread, and everything that it starts, all but these rights, forever. Return the kernel's version.

    Other threads that exist already are not restricted: call this in the only thread, or execute a program after it.
    A file that does not exist is left out. Port 0 stands for any free port, for BIND.

    Raises:
        OSError: the kernel has no Landlock (ENOSYS, EOPNOTSUPP), or refuses a rule.
    """
    version = abi()
    if version == 0:
        raise OSError(errno.EOPNOTSUPP, "the kernel has no Landlock")
    handled = handled_files(version)
    network = PortAccess.BIND | PortAccess.CONNECT if version >= _NETWORK_SINCE else PortAccess(0)
    attributes = struct.pack("=QQQ", handled, network, _SCOPES if version >= _SCOPES_SINCE else 0)
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _NETWORK_SINCE else 8
    ruleset = _call(_CREATE_RULESET, attributes, size, 0)
    try:
        for path, access in files:
            _allow_path(ruleset, path, access & handled)
        for port, allowed in ports.items() if network else ():
            _call(_ADD_RULE, ruleset, _PORT_RULE, struct.pack("=QQ", allowed, port), 0)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow_path(ruleset: int, path: Path, access: FileAccess) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return
    try:
        allowed = access if path.is_dir() else access & _OF_FILES
        _call(_ADD_RULE, ruleset, _PATH_RULE, struct.pack("=Qi", allowed, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes) -> int:
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
