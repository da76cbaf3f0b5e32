"""The files that ``grantledger import`` reads: plain or gzip, one record per line or one JSON list of records."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from ..base.errors import UsageError
from .json_fields import Location
from .record_list import RawRecord, RecordList, is_record_list

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 64 * 1024


STANDARD_INPUT = "standard input"
"""The name of standard input in locations."""


class InputError(UsageError):
    """A file cannot be read. The message names it."""


class InputFile(AbstractContextManager["InputFile"]):
    """One file, plain or gzip (recognized by its first bytes), or standard input for ``-``.

    Raises:
        InputError: the file cannot be opened.
    """

    def __init__(self, name: str) -> None:
        self.name = STANDARD_INPUT if name == "-" else name
        self.size: int | None = None
        try:
            self._file: IO[bytes] = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 - closed by __exit__
            self._owned = name != "-"
            if self._owned:
                self.size = Path(name).stat().st_size
            magic = self._file.peek(2)[:2] if hasattr(self._file, "peek") else b""
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error
        zipped = magic == _GZIP_MAGIC
        self._lines: IO[bytes] = gzip.GzipFile(fileobj=self._file) if zipped else self._file  # type: ignore[assignment]

    def position(self) -> int:
        """Return how many bytes of the file, as stored, have been read."""
        return self._file.tell() if self._owned else 0

    def read(self, limit: int) -> bytes:
        """Return up to ``limit`` bytes."""
        return self._checked(self._lines.read, limit)

    def line(self, limit: int) -> bytes:
        """Return the next line with its line end, or the first ``limit`` bytes of a longer one; empty at the end."""
        return self._checked(self._lines.readline, limit)

    def _checked(self, read: Callable[[int], bytes], limit: int) -> bytes:
        try:
            return read(limit)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self.name}: damaged; reading stopped ({error})") from error

    def records(self, list_member: str | None, limit: int, reject: Callable[[bytes], object]) -> Iterator[RawRecord]:
        """Yield the records of the file.

        Args:
            list_member: the member with the records, if the tool writes files that are one JSON list.
            limit: the maximum length of a record in bytes.
            reject: receives the bytes of records that cannot be split off, in pieces; each record ends with a line end.

        Raises:
            InputError: the file is damaged. The records before the damage have been yielded.
        """
        head = b""
        if list_member is not None:
            is_list = None
            while is_list is None and (line := self.line(limit + 2)):
                head += line
                is_list = is_record_list(head, list_member)
            if is_list:
                yield from RecordList(self.name, head, self.read, member=list_member, limit=limit, reject=reject)
                return
        yield from self._by_line(head, limit, reject)

    def _by_line(self, head: bytes, limit: int, reject: Callable[[bytes], object]) -> Iterator[RawRecord]:
        """Yield the lines, starting with those of ``head``, which were already read; its last line may be partial."""
        begun = io.BytesIO(head).readlines()
        number = 0
        while line := begun.pop(0) if begun else self.line(limit + 2):
            number += 1
            stripped = line.removesuffix(b"\n").removesuffix(b"\r")
            if len(stripped) <= limit:
                yield RawRecord(Location(self.name, number), stripped)
                continue
            reject(line)
            while not line.endswith(b"\n") and (line := self.line(_PIECE_BYTES)):
                reject(line)
            yield RawRecord(Location(self.name, number), None, f"longer than {limit} bytes")

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._file.close()
