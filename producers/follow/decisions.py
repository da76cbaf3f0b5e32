"""What to read after a look at the folders: which files, in which order, and from where. Pure: the caller reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from .position import SAMPLE_BYTES, FilePosition, Sample

COMPRESSING_NANOSECONDS = 60_000_000_000
"""How long the compressed copy of a file waits for its completion and the removal of the file."""
_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a look has found.

    Attributes:
        modified: time of the last change of its content, in nanoseconds since 1970; a program may set it.
        changed: time of its last change of any kind, in nanoseconds.
        named: the user named it, directly or by a pattern. The others are rotated files of those.
        rotated: its name is that of a rotated file, so it may be a copy of another one.
        encoded: it is compressed, or UTF-16 or UTF-32.
        sample: of its content. Of an encoded file, only of the beginning of the decoded content.
    """

    path: str
    inode: int
    size: int
    modified: int
    changed: int
    named: bool
    rotated: bool
    encoded: bool
    sample: Sample


class Origin(Enum):
    """What a file is."""

    SAME = "same"
    """The file of the position, perhaps renamed."""
    COPY = "copy"
    """A copy of the file of the position, which is gone or has other content now."""
    NEW = "new"
    """Read from its beginning."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A file to read. ``position``: the index of its position; None if it is new."""

    found: Found
    origin: Origin
    position: int | None = None


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """What to read.

    Attributes:
        choices: the files to read, in this order.
        missing: the indices of the positions whose content no file has.
        waits: a file is probably being copied or compressed. Decide again even if nothing changes.
    """

    choices: tuple[Choice, ...]
    missing: tuple[int, ...]
    waits: bool = False


def decide(found: Iterable[Found], positions: Sequence[FilePosition], since: int, now: int) -> ReadingPlan:
    """Return what to read.

    Args:
        found: all named files, those with the inode of a position, and those with the name of a rotated file.
        positions: in any order; several may have the inode 0.
        since: time of the first look, in nanoseconds. A rotated file without a position that was not changed since then
            was rotated before, and is not read.
        now: the time, in nanoseconds.
    """
    files = sorted(_once(found), key=_age)
    by_inode = {one.inode: one for one in files}
    choices: dict[int, Choice] = {}
    missing = []
    for index, position in enumerate(positions):
        file = by_inode.get(position.inode)
        if file is not None and file.inode not in choices and _is_same(position, file):
            choices[file.inode] = Choice(file, Origin.SAME, index)
        else:
            missing.append(index)
    unknown = [file for file in files if file.inode not in choices]
    # A copy in plain text is there before it is compressed, and is complete earlier.
    for file in sorted(unknown, key=lambda one: one.encoded):
        for index in missing:
            if _is_copy(positions[index], file):
                missing.remove(index)
                choices[file.inode] = Choice(file, Origin.COPY, index)
                break
    for file in files:
        if file.inode not in choices and not file.rotated:
            choices[file.inode] = Choice(file, Origin.NEW)
    originals, waits = [choice.found for choice in choices.values()], False
    for file in files:
        if file.inode in choices or (file.modified < since and not file.named):
            continue
        if any(_repeats(file, one, now) for one in originals):
            waits = True
        else:
            choices[file.inode] = Choice(file, Origin.NEW)
    return ReadingPlan(tuple(choices[file.inode] for file in files if file.inode in choices), tuple(missing), waits)


def _once(found: Iterable[Found]) -> list[Found]:
    """Return each file once: it may have several names."""
    files: dict[int, Found] = {}
    for one in found:
        if one.inode not in files or one.named > files[one.inode].named:
            files[one.inode] = one
    return list(files.values())


def _age(file: Found) -> tuple[object, ...]:
    """Order by the last change. If clocks are coarse, a rotated file comes first, and of those the highest number."""
    numbers = [-int(one) for one in _NUMBERS.findall(file.path)]
    return file.modified, file.named, numbers, file.path


def _is_same(position: FilePosition, file: Found) -> bool:
    if position.encoded != file.encoded and position.offset:
        return False
    if file.encoded:
        return position.whole is None or position.whole == (file.size, file.modified)
    return file.size >= position.offset and position.is_in(file.sample)


def _is_copy(position: FilePosition, file: Found) -> bool:
    """Return whether a file continues a position. Of an encoded file, its reader checks the rest."""
    if not position.offset:
        return False
    return position.begins(file.sample) if file.encoded else position.is_in(file.sample)


def _repeats(file: Found, original: Found, now: int) -> bool:
    """Return whether a rotated file is so far a copy of a file that is read anyway: then it waits.

    When the original is truncated or removed, its position is missing, and the copy continues it. How much a compressed
    file contains is not known, so it does not wait for long.
    """
    if original.encoded:
        return False
    if file.encoded:
        content = file.sample(0, SAMPLE_BYTES)
        return now - file.changed < COMPRESSING_NANOSECONDS and content == original.sample(0, len(content))
    if file.size > original.size:
        return False
    start = max(0, file.size - SAMPLE_BYTES)
    return all(
        file.sample(at, length) == original.sample(at, length)
        for at, length in ((0, min(file.size, SAMPLE_BYTES)), (start, file.size - start))
    )
