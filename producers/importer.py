"""Reading a tool's files through its adapter, and counting what became of every record."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..schemas.event import Action, Event
from ..schemas.rules import InvalidEventError
from .adapters import Adapter, Place, RecordError, Skipped
from .adapters.wrapping import Cutter, begins_wrapped
from .client import EventTooLargeError

MAX_RECORD_BYTES = 1024 * 1024
"""A longer record is refused before it is parsed, so that no file can fill the memory."""
KEPT_FAILURES = 20
KEPT_TEXT, KEPT_ARGUMENT, KEPT_ARGUMENTS = 65_536, 1024, 100
"""How much of an action is kept where the whole does not fit into one Kafka record: characters, and how many."""
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 64 * 1024


class InputError(RuntimeError):
    """A file that cannot be read; the message names it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One record that could not be read."""

    place: Place
    problem: str


@dataclass(slots=True)
class Report:
    """What became of the records of an import. Every record is counted once: mapped, skipped or failed."""

    mapped: int = 0
    events: int = 0
    without_raw: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    """The first of them, ``KEPT_FAILURES`` at most."""

    @property
    def records(self) -> int:
        """How many records were read."""
        return self.mapped + self.skipped.total() + self.failed


def _shortened(action: Action | None) -> Action | None:
    """Return an action whose texts fit into a record, marked as truncated."""
    if action is None:
        return None
    return replace(
        action,
        command=action.command and action.command[:KEPT_TEXT],
        args=tuple(arg[:KEPT_ARGUMENT] for arg in action.args[:KEPT_ARGUMENTS]),
        query=action.query and action.query[:KEPT_TEXT],
        truncated=True,
    )


class Input(AbstractContextManager["Input"]):
    """One file, plain or gzip (told by its first bytes), or standard input for ``-``.

    Raises:
        InputError: the file cannot be opened.
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
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
        """How many bytes of the file itself have been read."""
        return self._file.tell() if self._owned else 0

    def read(self, limit: int) -> bytes:
        """Return up to ``limit`` bytes; InputError where the file is damaged."""
        try:
            return self._lines.read(limit)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self.name}: damaged, reading stopped ({error})") from error

    def line(self, limit: int) -> bytes:
        """Return the next line with its end, or a piece of ``limit`` bytes of a longer one; empty at the end."""
        try:
            return self._lines.readline(limit)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{self.name}: damaged, reading stopped ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._owned:
            self._file.close()


class Importer:
    """Feeds files to an adapter and its events to ``send``. Holds one record at a time.

    Args:
        adapter: of the tool that wrote the files.
        send: takes each event, ``Client.send`` as a rule. What it raises, except InvalidEventError, ends the import.
        reject: takes the bytes of every record that failed, in pieces; a record ends with a line end.
        progress: called now and then with how many bytes of the file have been read.
        max_record_bytes: longer records fail.
    """

    def __init__(
        self,
        adapter: Adapter,
        send: Callable[[Event], object],
        *,
        reject: Callable[[bytes], object] | None = None,
        progress: Callable[[int], object] | None = None,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._adapter = adapter
        self._send = send
        self._reject = reject or (lambda piece: None)
        self._progress = progress or (lambda position: None)
        self._limit = max_record_bytes
        self.report = Report()

    def run(self, source: Input) -> None:
        """Import one file; ``report`` grows with every record.

        Raises:
            InputError: the file is damaged. The records before the damage have been imported.
        """
        for number, (place, raw) in enumerate(self._records(source), 1):
            if raw is not None:
                self._record(raw, place)
            if number % 500 == 0:
                self._progress(source.position())
        self._progress(source.position())

    def _records(self, source: Input) -> Iterator[tuple[Place, bytes | None]]:
        """Return every record with its place; None for one that has failed already."""
        if self._adapter.UNIT == "document":
            raw = source.read(self._limit + 1)
            if len(raw) > self._limit:
                self._fail(Place(source.name, 1), self._too_long())
                return
            yield Place(source.name, 1), raw
            return
        head = b""
        if self._adapter.WRAPPER is not None:
            wrapped = None
            while wrapped is None and (line := source.line(self._limit + 2)):
                head += line
                wrapped = begins_wrapped(head, self._adapter.WRAPPER)
            if wrapped:
                yield from self._wrapped(source, head, self._adapter.WRAPPER)
                return
        yield from self._by_line(source, head)

    def _wrapped(self, source: Input, head: bytes, member: str) -> Iterator[tuple[Place, bytes | None]]:
        for cut in Cutter(head, source.read, member, self._limit, self._reject):
            place = Place(source.name, cut.line, cut.number)
            if cut.problem is not None:
                self._fail(place, cut.problem)
            yield place, cut.raw

    def _by_line(self, source: Input, head: bytes) -> Iterator[tuple[Place, bytes | None]]:
        """Return the lines, first those of ``head``, which have been read already; the last of them may go on."""
        begun = io.BytesIO(head).readlines()
        number = 0
        while line := begun.pop(0) if begun else source.line(self._limit + 2):
            number += 1
            place = Place(source.name, number)
            stripped = line.removesuffix(b"\n").removesuffix(b"\r")
            if len(stripped) > self._limit:
                self._fail(place, self._too_long())
                self._reject(line)
                while not line.endswith(b"\n") and (line := source.line(_PIECE_BYTES)):
                    self._reject(line)
                yield place, None
                continue
            yield place, stripped

    def _record(self, raw: bytes, place: Place) -> None:
        try:
            outcome = self._adapter.read(raw, place)
            if not isinstance(outcome, Skipped):
                for event in outcome:
                    self._send_event(event)
        except (RecordError, InvalidEventError) as error:
            problem = str(error).removeprefix(f"{place}: ") if isinstance(error, RecordError) else str(error)
            self._fail(place, problem)
            self._reject(raw + b"\n")
            return
        if isinstance(outcome, Skipped):
            self.report.skipped[outcome.reason] += 1
        else:
            self.report.mapped += 1

    def _send_event(self, event: Event) -> None:
        try:
            self._send(event)
        except EventTooLargeError:
            self.report.without_raw += 1
            try:
                # The record's own bytes may be left out; their digest stays.
                self._send(replace(event, raw=None))
            except EventTooLargeError:
                self._send(replace(event, raw=None, action=_shortened(event.action)))
        self.report.events += 1

    def _fail(self, place: Place, problem: str) -> None:
        self.report.failed += 1
        if len(self.report.failures) < KEPT_FAILURES:
            self.report.failures.append(Failure(place, problem))

    def _too_long(self) -> str:
        return f"longer than {self._limit} bytes"
