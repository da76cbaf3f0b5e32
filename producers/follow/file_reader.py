"""Reads one file that is followed: a growing one as it grows, a compressed one as a whole."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from ..envelopes import Envelopes, ToolRecord
from ..envelopes.encodings import Read, decoded
from ..envelopes.pieces import Boundary
from .decisions import Found
from .folders import DAMAGE
from .position import SAMPLE_BYTES, FilePosition, digest, digests_at

PATIENCE_SECONDS = 10.0
"""After this time without growth, an object or list whose end is missing is taken for a damaged line."""
KEEP_OPEN_SECONDS = 600.0
"""How long a file without growth stays open, so that it can be read to its end if it is removed."""
_CHECKED_BYTES = 1024
_SEARCHED_BYTES = 64 * 1024

Take = Callable[[ToolRecord, bool], None]
"""Receives a record, and whether its events were acknowledged before the start."""


class _AtEndError(Exception):
    """The file ends here for now."""


class _ChangedError(Exception):
    """The file has other content than before."""


class FileReader(ABC):
    """Reads a file in small portions.

    Args:
        found: the file.
        position: where to continue.
        envelopes: unwrap the records.
        take: receives them.
        remember: read from the beginning, because the adapter must know earlier records.

    Attributes:
        position: how far everything was acknowledged.
        problem: why the file cannot be read, or an empty string.
        changed: it has other content now; the next look decides what it is.
    """

    def __init__(
        self, found: Found, position: FilePosition, envelopes: Envelopes, take: Take, *, remember: bool
    ) -> None:
        self.found = found
        self.position = position
        self.problem = ""
        self.changed = False
        self._take = take
        self._start = Boundary() if remember else position.boundary
        self._envelopes = envelopes
        self._stream = envelopes.stream(found.path, self._start)
        self._records: Iterator[ToolRecord] | None = None

    def seen(self, found: Found, now: float) -> None:
        """Note where the file is now."""
        self.found = found
        self.position = replace(self.position, path=found.path, inode=found.inode, seen=now)

    def reads(self, found: Found) -> bool:
        """Whether this reader can go on with the file: it has the same content, and is as encoded as before."""
        return not self.changed and isinstance(self, EncodedFile) == found.encoded

    @property
    def lines(self) -> int:
        """How many lines were read."""
        return self._stream.at.lines

    @property
    def catching_up(self) -> bool:
        """Whether it reads what was acknowledged before the start."""
        return self._stream.at.offset < self.position.offset and not self.changed and not self.problem

    @property
    def at_end(self) -> bool:
        """Whether everything that was there is read."""
        return self._records is None

    @abstractmethod
    def rests(self, *, final: bool) -> bool:
        """Whether nothing has changed since everything was read."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the file is open."""

    @abstractmethod
    def turn(self, count: int, now: float, *, final: bool) -> bool:
        """Read up to ``count`` records; return whether there may be more.

        ``final``: the end of the file ends its last line.
        """

    @abstractmethod
    def advance(self) -> bool:
        """Move ``position`` behind what was read, as all of it is acknowledged; return whether it moved."""

    @abstractmethod
    def lag(self) -> int:
        """Return how many bytes are not acknowledged."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def _pass_on(self, records: Iterator[ToolRecord], count: int) -> bool:
        """Pass on up to ``count`` records; return whether there may be more."""
        for _ in range(count):
            record = next(records, None)
            if record is None:
                return False
            self._take(record, self._stream.at.offset < self.position.offset)
        return True


class GrowingFile(FileReader):
    """Reads a file in plain text as it grows. It is kept open, so a rename or a removal hides nothing."""

    def __init__(
        self, found: Found, position: FilePosition, envelopes: Envelopes, take: Take, *, remember: bool
    ) -> None:
        super().__init__(found, position, envelopes, take, remember=remember)
        self._file: int | None = None
        self._read_at = self._start.offset
        self._before: bytes | None = None
        """What lies before ``_read_at``. If the file has something else there, it was truncated and written again."""
        self._ended_at = self._finally_ended_at = -1
        self._grew = 0.0
        self._final = False

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def rests(self, *, final: bool) -> bool:
        """Whether nothing has changed since everything was read."""
        return self._size() == (self._finally_ended_at if final else self._ended_at)

    def turn(self, count: int, now: float, *, final: bool) -> bool:
        """Read up to ``count`` records."""
        self._final = final
        if final and self.rests(final=True):
            return False
        try:
            if self._records is None:
                self._records = self._begin(now)
            if self._records is None:
                return False
            if self._pass_on(self._records, count):
                return True
            self._end()
            self._finally_ended_at = self._ended_at
        except _AtEndError:
            self._end()
            if final:
                return True
        except _ChangedError:
            self.changed, self._records = True, None
        except OSError as error:
            self._end()
            self.close()
            self.problem, self._ended_at = f"cannot be read ({error.strerror})", -1
        return False

    def advance(self) -> bool:
        """Move ``position`` behind what was read."""
        safe = self._stream.safe
        if safe.offset <= self.position.offset or self._file is None or self.changed:
            return False
        try:
            head, tail = digests_at(safe.offset, self._sample)
            intact = self._is_intact()
        except OSError:
            return False
        if intact:  # otherwise the samples may be of other content
            self.position = replace(
                self.position, offset=safe.offset, lines=safe.lines, in_line=safe.in_line, head=head, tail=tail
            )
        self.changed = not intact
        return intact

    def lag(self) -> int:
        """Return how many bytes are not acknowledged."""
        return max(0, self._size() - self.position.offset)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file, self._records = None, None

    def _size(self) -> int:
        return self.found.size if self._file is None else os.fstat(self._file).st_size

    def _begin(self, now: float) -> Iterator[ToolRecord] | None:
        """Return the next records; None if there is nothing to read."""
        size, as_line = self._size(), False
        if size == self._ended_at:
            if self._final:
                return self._stream.records(self._read) if self._open_at(self._stream.at.offset) else None
            if now - self._grew > KEEP_OPEN_SECONDS:
                self.close()
            if self._stream.at.offset == size or now - self._grew < PATIENCE_SECONDS or self._file is None:
                return None
            as_line = b"\n" in self._sample(self._stream.at.offset, _SEARCHED_BYTES)
            self._grew = now
            if not as_line:
                return None
        self._grew = now
        if not self._open_at(self._stream.at.offset):
            return None
        return self._stream.records(self._read, self._ahead, as_line=as_line)

    def _open_at(self, offset: int) -> bool:
        if self._file is None:
            try:
                file = os.open(self.found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                return False
            if os.fstat(file).st_ino != self.found.inode:
                os.close(file)
                return False  # the next look finds it under another name
            self._file = file
        before = self._sample(max(0, offset - _CHECKED_BYTES), min(offset, _CHECKED_BYTES))
        if not self._is_intact() or not self.position.is_in(self._sample):
            raise _ChangedError
        self._read_at, self._before, self.problem = offset, before, ""
        return True

    def _is_intact(self) -> bool:
        if self._before is None:
            return True
        return self._sample(self._read_at - len(self._before), len(self._before)) == self._before

    def _sample(self, start: int, length: int) -> bytes:
        return os.pread(self._file, length, start) if self._file is not None else b""

    def _ahead(self, length: int) -> bytes:
        data = self._sample(self._read_at, length)
        if not self._is_intact():
            raise _ChangedError
        self._read_at += len(data)
        self._before = ((self._before or b"") + data)[-_CHECKED_BYTES:]
        return data

    def _read(self, length: int) -> bytes:
        data = self._ahead(length)
        if not data and not self._ended_finally():
            raise _AtEndError
        return data

    def _ended_finally(self) -> bool:
        return self._final and self._ended_at == self._read_at

    def _end(self) -> None:
        self._records, self._ended_at = None, self._read_at


class EncodedFile(FileReader):
    """Reads a compressed file from its beginning to its end. It counts as read when its end was read."""

    def __init__(
        self, found: Found, position: FilePosition, envelopes: Envelopes, take: Take, *, remember: bool
    ) -> None:
        super().__init__(found, position, envelopes, take, remember=remember)
        self._file: IO[bytes] | None = None
        self._content = _Content(lambda _length: b"")
        self._is_read = position.whole is not None and not remember
        self._as_opened = (-1, -1)
        self._damage: tuple[str, float] | None = None
        """The damage and its time: the file may still be being written."""
        self._finished: FilePosition | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def rests(self, *, final: bool) -> bool:
        """Whether nothing has changed since everything was read."""
        return self._is_read or (self.found.size, self.found.modified) == self._as_opened

    def turn(self, count: int, now: float, *, final: bool) -> bool:
        """Read up to ``count`` records."""
        if self._is_read:
            return False
        try:
            if self._records is None:
                if (self.found.size, self.found.modified) == self._as_opened:
                    self._report_damage(now, final=final)
                    return False
                self._records = self._begin()
            if self._pass_on(self._records, count):
                return True
        except DAMAGE as error:
            self.close()
            self._damage = f"damaged; reading stopped ({error})", now
            self._report_damage(now, final=final)
            return False
        self._is_read, self.problem = True, ""
        head, tail = self._content.digests()
        self._finished = FilePosition(
            self.found.path, self.found.inode, self._content.length, self._stream.at.lines, head=head, tail=tail,
            encoded=True, whole=self._as_opened, seen=self.position.seen,
        )  # fmt: skip
        self.close()
        return False

    def advance(self) -> bool:
        """Move ``position`` to the end, if it was read."""
        if self._finished is None:
            return False
        self.position, self._finished = self._finished, None
        return True

    def lag(self) -> int:
        """Return how many bytes, as stored, are not acknowledged."""
        return 0 if self.position.whole is not None else self.found.size

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._records = None

    def _begin(self) -> Iterator[ToolRecord]:
        if self.position.offset and self.position.whole is None and not self._is_continued():
            # It only has the same beginning.
            self.position = FilePosition(self.found.path, self.found.inode, encoded=True, seen=self.position.seen)
            self._start = Boundary()
        self._open()
        self._stream = self._envelopes.stream(self.found.path, self._start)
        self._content.skip(self._start.offset)
        return self._stream.records(self._content.read)

    def _is_continued(self) -> bool:
        self._open()
        self._content.skip(self.position.offset)
        return self._content.length == self.position.offset and self.position.continues(self._content.end())

    def _open(self) -> None:
        self.close()
        self._file = Path(self.found.path).open("rb")  # noqa: SIM115 - closed by close
        status = os.fstat(self._file.fileno())
        if status.st_ino != self.found.inode:
            raise FileNotFoundError(errno.ENOENT, "it was renamed")  # the next look finds it under another name
        self._as_opened = status.st_size, status.st_mtime_ns
        self._content = _Content(decoded(self._file.read))

    def _report_damage(self, now: float, *, final: bool) -> None:
        if self._damage is not None and (final or now - self._damage[1] >= PATIENCE_SECONDS):
            self.problem = self._damage[0]


class _Content:
    """Reads, and keeps what the digests of a position need."""

    def __init__(self, read: Read) -> None:
        self.length = 0
        self._decoded = read
        self._head = b""
        self._tail = b""

    def read(self, length: int) -> bytes:
        data = self._decoded(length)
        self.length += len(data)
        if len(self._head) < SAMPLE_BYTES:
            self._head += data[: SAMPLE_BYTES - len(self._head)]
        self._tail = (self._tail + data)[-SAMPLE_BYTES:]
        return data

    def skip(self, length: int) -> None:
        while self.length < length and self.read(min(_SEARCHED_BYTES, length - self.length)):
            pass

    def end(self) -> bytes:
        return self._tail

    def digests(self) -> tuple[str, str]:
        return digest(self._head), digest(self._tail)
