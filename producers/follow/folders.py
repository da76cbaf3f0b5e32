"""Looks at the folders: finds the named files and their rotated ones. Polling, which also works on NFS."""

from __future__ import annotations

import glob
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from ..envelopes.encodings import EncodingError, decoded, is_encoded
from .decisions import Found
from .position import FilePosition
from .rotated_names import is_alike, originals

DAMAGE = (OSError, EOFError, EncodingError, zlib.error)
"""What reading a damaged file, or one that is still being written, can raise."""


_HEAD_BYTES = 4


class Look(NamedTuple):
    """What was found, and by path why a file cannot be read."""

    found: list[Found]
    problems: dict[str, str]


class Folders:
    """The files that a user named.

    Args:
        names: files, folders, and patterns with ``*``, ``?``, ``[…]`` and ``**``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._kinds: dict[int, tuple[int, int, bool]] = {}

    def look(self, positions: Iterable[FilePosition]) -> Look:
        """Return the named files, those of the positions, and those with the name of a rotated file."""
        look = Look([], {})
        known = list(positions)
        named = {path: None for name in self._names for path in self._paths(name, look)}
        for path in named:
            folder, name = os.path.split(path)
            rotated = any(os.path.join(folder, one) in named for one in originals(name))  # noqa: PTH118
            self._add(look, path, named=True, rotated=rotated)
        inodes = {one.inode for one in known} - {0}
        names: dict[str, set[str]] = {}
        alike: dict[str, set[str]] = {}
        for path in (*named, *(one.path for one in known)):
            folder, name = os.path.split(path)
            names.setdefault(folder, set()).add(name)
            if os.path.islink(path):  # noqa: PTH114 - False, not an error, without access
                folder, name = os.path.split(os.path.realpath(path))
                names.setdefault(folder, set()).add(name)
                alike.setdefault(folder, set()).add(name)
        patterns = self._patterns()
        for folder in names.keys() | patterns.keys():
            for name, inode in _entries(folder):
                path = os.path.join(folder, name)  # noqa: PTH118 - as the user wrote it
                if (
                    path not in named
                    and not name.startswith(".")
                    and (
                        inode in inodes
                        or any(one in names.get(folder, ()) for one in originals(name))
                        or any(fnmatch(one, pattern) for pattern in patterns.get(folder, ()) for one in originals(name))
                        or any(is_alike(name, one) for one in alike.get(folder, ()))
                    )
                ):
                    self._add(look, path, named=False, rotated=True)
        self._kinds = {one.inode: (one.size, one.modified, one.encoded) for one in look.found}
        return look

    def _patterns(self) -> dict[str, set[str]]:
        """Return the patterns of names, by folder: a file may be rotated before a look finds it."""
        patterns: dict[str, set[str]] = {}
        for name in filter(glob.has_magic, self._names):
            folders, pattern = os.path.split(name)
            found = glob.iglob(folders, recursive=True) if glob.has_magic(folders) else [folders]  # noqa: PTH207
            for folder in found:
                patterns.setdefault(folder.rstrip("/") or folder, set()).add(pattern)
        return patterns

    def _paths(self, name: str, look: Look) -> Iterator[str]:
        if glob.has_magic(name):
            yield from sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 - keeps the path as the user wrote it
        elif os.path.isdir(name):  # noqa: PTH112 - False, not an error, without access
            yield from _files_below(name, look)
        else:
            yield name

    def _add(self, look: Look, path: str, *, named: bool, rotated: bool) -> None:
        try:
            status = Path(path).stat()
            if not stat.S_ISREG(status.st_mode):
                if named and not stat.S_ISDIR(status.st_mode):
                    look.problems[path] = "is no regular file"
                return
            if rotated and status.st_size < _HEAD_BYTES:
                return  # perhaps the beginning of a compressed file
            kind = self._kinds.get(status.st_ino)
            if kind is not None and kind[:2] == (status.st_size, status.st_mtime_ns):
                encoded = kind[2]
            else:
                encoded = is_encoded(_read(path, status.st_ino, 0, _HEAD_BYTES))
        except FileNotFoundError:
            if named and not glob.has_magic(path):
                look.problems[path] = "there is no such file yet"
            return
        except OSError as error:
            look.problems[path] = f"cannot be read ({error.strerror})"
            return
        look.found.append(_found(path, status, encoded, named=named, rotated=rotated))


def _found(path: str, status: os.stat_result, encoded: bool, *, named: bool, rotated: bool) -> Found:
    def sample(start: int, length: int) -> bytes:
        try:
            if not encoded:
                return _read(path, status.st_ino, start, length)
            return _decoded_start(path, length) if start == 0 else b""
        except OSError:
            return b""  # it went away since the look

    return Found(
        path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, named, rotated, encoded, sample
    )


def _read(path: str, inode: int, start: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(file, length, start) if os.fstat(file).st_ino == inode else b""
    finally:
        os.close(file)


def _decoded_start(path: str, length: int) -> bytes:
    with Path(path).open("rb") as file:
        content = b""
        try:
            read = decoded(file.read)
            while len(content) < length and (piece := read(length - len(content))):
                content += piece
        except DAMAGE:
            pass  # it is still being written
        return content


def _entries(folder: str) -> list[tuple[str, int]]:
    try:
        with os.scandir(folder or ".") as entries:
            return [(one.name, one.inode()) for one in entries if not one.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _files_below(folder: str, look: Look) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        look.problems[str(error.filename)] = f"cannot be read ({error.strerror})"

    for path, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        yield from (os.path.join(path, one) for one in sorted(files) if not one.startswith("."))  # noqa: PTH118
