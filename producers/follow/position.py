"""The position of a file: how far its events were acknowledged, and by what the file is recognized later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ..envelopes.pieces import Boundary

SAMPLE_BYTES = 4096
"""The longest part of a file that is compared, at its beginning and before the position."""
Sample = Callable[[int, int], bytes]
"""Returns the bytes of a file from an offset on, at most the given number; fewer at its end."""


@dataclass(frozen=True, slots=True)
class FilePosition:
    """How far a file was read and acknowledged.

    A file has no lasting name. Its inode changes when it is compressed, and a truncated file keeps it with other
    content. So its content decides: its first bytes, and the last ones before the offset.

    Attributes:
        path: where it was last seen, for people.
        inode: of the file; 0 if no file is known to have this content.
        offset, lines: what lies before was acknowledged; of a compressed file, in its decoded content.
        in_line: the offset is inside a line that is too long, whose rest is not read.
        head: SHA-256 of the first ``SAMPLE_BYTES`` before the offset, in hexadecimal.
        tail: SHA-256 of the last ``SAMPLE_BYTES`` before the offset.
        encoded: the inode is that of a compressed file.
        whole: size and time of the last change, in nanoseconds, of a compressed file that was read to its end.
        seen: when the file was last there, in seconds since 1970.
    """

    path: str
    inode: int
    offset: int = 0
    lines: int = 0
    in_line: bool = False
    head: str = ""
    tail: str = ""
    encoded: bool = False
    whole: tuple[int, int] | None = None
    seen: float = 0.0

    @property
    def boundary(self) -> Boundary:
        """Where reading continues."""
        return Boundary(self.offset, self.lines, self.in_line)

    def begins(self, sample: Sample) -> bool:
        """Return whether a file has the same beginning."""
        return digest(sample(0, min(self.offset, SAMPLE_BYTES))) == self.head if self.offset else True

    def continues(self, before: bytes) -> bool:
        """Return whether the bytes before the offset, at most ``SAMPLE_BYTES``, are the same."""
        return digest(before) == self.tail if self.offset else True

    def is_in(self, sample: Sample) -> bool:
        """Return whether a file contains what lies before the position."""
        start = max(0, self.offset - SAMPLE_BYTES)
        return self.begins(sample) and self.continues(sample(start, self.offset - start))


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digests_at(offset: int, sample: Sample) -> tuple[str, str]:
    """Return ``head`` and ``tail`` of a position."""
    start = max(0, offset - SAMPLE_BYTES)
    return digest(sample(0, min(offset, SAMPLE_BYTES))), digest(sample(start, offset - start))
