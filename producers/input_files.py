"""The files that ``grantledger import`` reads, folders of them, objects in S3, and standard input."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import IO, NoReturn

from ..base.errors import UsageError
from .envelopes import Envelopes, ToolRecord
from .envelopes.encodings import EncodingError
from .json_fields import Location

S3_SCHEME = "s3://"
STANDARD_INPUT = "standard input"
"""The name of standard input in locations."""


class InputError(UsageError):
    """A file cannot be read. The message names it."""


def inputs(names: Iterable[str]) -> Iterator[InputFile]:
    """Return what the names mean: files, folders of files, ``s3://BUCKET/PREFIX``, and ``-``; each is opened in turn.

    Raises:
        InputError: from this call, an S3 address is wrong or its package is missing; from the iterator, something
            cannot be listed or opened.
    """
    return chain.from_iterable([_inputs(name) for name in names])


def _inputs(name: str) -> Iterator[InputFile]:
    if not name.startswith(S3_SCHEME):
        return map(InputFile, files_in([name]))
    try:
        from .s3_objects import Objects
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("grantledger"):
            raise
        raise InputError(f"{name} needs the package {error.name}: pip install 'grantledger[s3]'") from None
    return (InputFile(*opened) for opened in Objects(name))


def files_in(names: Iterable[str]) -> Iterator[str]:
    """Yield the names with each folder replaced by the files in it and its folders, sorted; hidden ones are left out.

    Raises:
        InputError: there is no file in a folder, or it cannot be read.
    """
    for name in names:
        folder = Path(name)
        if name == "-" or not folder.is_dir():
            yield name
            continue
        visible = []
        for path, folders, files in os.walk(folder, onerror=_unreadable):
            folders[:] = [one for one in folders if not one.startswith(".")]
            visible += [file for one in files if not one.startswith(".") and (file := Path(path, one)).is_file()]
        if not visible:
            raise InputError(f"{name}: the folder contains no file")
        yield from map(str, sorted(visible))


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error


class InputFile(AbstractContextManager["InputFile"]):
    """One file, standard input for ``-``, or what ``file`` reads.

    Args:
        file: is read instead of the file of that name, and closed at the end.
        size: the number of its bytes, as stored.

    Raises:
        InputError: the file cannot be opened.
    """

    def __init__(self, name: str, file: IO[bytes] | None = None, size: int | None = None) -> None:
        self.name = STANDARD_INPUT if name == "-" else name
        self.size = size
        self._owned = name != "-"
        if file is not None:
            self._file: IO[bytes] = file
            return
        try:
            self._file = Path(name).open("rb") if self._owned else sys.stdin.buffer  # noqa: SIM115 - closed by __exit__
            if self._owned:
                self.size = Path(name).stat().st_size
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from error

    def position(self) -> int:
        """Return how many bytes of the file, as stored, have been read."""
        return self._file.tell() if self._owned else 0

    def lines(self, limit: int) -> Iterator[tuple[Location, bytes | None, str]]:
        """Yield the location of each line, and the line without its line end; None and a problem if it is too long."""
        number = 0
        while line := self._file.readline(limit + 2):
            number += 1
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if len(text) <= limit:
                yield Location(self.name, number), text, ""
                continue
            while not line.endswith(b"\n") and (line := self._file.readline(64 * 1024)):
                pass
            yield Location(self.name, number), None, f"longer than {limit} bytes"

    def records(self, envelopes: Envelopes) -> Iterator[ToolRecord]:
        """Yield the records of the file.

        Raises:
            InputError: the file is damaged. The records before the damage have been yielded.
        """
        # read1 of standard input returns what is there, so that a pipe is read as it is written.
        read = getattr(self._file, "read1", self._file.read)
        try:
            yield from envelopes.records(read, self.name)
        except (OSError, EOFError, zlib.error, EncodingError) as error:
            raise InputError(f"{self.name}: damaged; reading stopped ({error})") from error

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._file.close()
