"""Reads a pipe or a journald unit in a thread of its own, as far as the queue has room."""

from __future__ import annotations

import os
import queue
import re
import select
import subprocess
import threading
from collections import deque
from typing import IO, NamedTuple, cast

from ..envelopes import Envelopes, ToolRecord
from ..envelopes.encodings import decoded, is_encoded
from .folders import DAMAGE

PIPE = "-"
JOURNALD = "journald:"
QUEUED_RECORDS = 1_000
RESTART_SECONDS = 5.0
_CURSOR = re.compile(rb'"__CURSOR"\s*:\s*"([^"\\]+)"')


class _Item(NamedTuple):
    record: ToolRecord | None
    safe: int
    """The offset up to which everything is in this item or an earlier one."""
    lines: int


class StreamReader:
    """Reads records from a file descriptor. A pipe has no position: what a killed process has read is gone.

    Attributes:
        ended: the stream ended and all of it was taken.
        problem: why it cannot be read, or an empty string.
    """

    def __init__(self, name: str, file: int, envelopes: Envelopes) -> None:
        self.name = name
        self.ended = False
        self.problem = ""
        self.lines = 0
        self.safe = 0
        self._file = file
        self._envelopes = envelopes
        self._items: queue.Queue[_Item] = queue.Queue(QUEUED_RECORDS)
        self._stopping = threading.Event()
        self._head = b""
        self._stream = envelopes.stream(name)
        self._thread = threading.Thread(target=self._run, name=f"follow {name}", daemon=True)
        self._thread.start()

    def take(self, count: int) -> list[ToolRecord]:
        """Return the next records, at most ``count``, without waiting."""
        records: list[ToolRecord] = []
        done = not self._thread.is_alive()
        while len(records) < count:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                self.ended = done
                break
            self.safe, self.lines = max(self.safe, item.safe), item.lines
            if item.record is not None:
                records.append(item.record)
        return records

    @property
    def queued(self) -> int:
        """How many records wait to be taken."""
        return self._items.qsize()

    def close(self) -> None:
        """End the thread soon."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while len(self._head) < 4 and (piece := self._more(4 - len(self._head))):
                self._head += piece
            encoded = is_encoded(self._head)
            read = decoded(self._buffered) if encoded else self._buffered
            for record in self._stream.records(read, None if encoded else self._ahead):
                self._put(record)
            self._put(None)
        except _StoppedError:
            pass
        except DAMAGE as error:
            self.problem = f"damaged; reading stopped ({error})"

    def _put(self, record: ToolRecord | None) -> None:
        item = _Item(record, self._stream.safe.offset, self._stream.at.lines)
        while not self._stopping.is_set():
            try:
                self._items.put(item, timeout=0.5)
            except queue.Full:
                continue
            return
        raise _StoppedError

    def _buffered(self, length: int) -> bytes:
        if self._head:
            data, self._head = self._head[:length], self._head[length:]
            return data
        return self._more(length)

    def _ahead(self, length: int) -> bytes:
        if self._head or self._has_more(0):
            return self._buffered(length)
        return b""

    def _more(self, length: int) -> bytes:
        if not self._has_more(0):
            self._stream.settle()
            self._put(None)
            while not self._has_more(0.5):
                if self._stopping.is_set():
                    raise _StoppedError
        return self.note(os.read(self._file, length))

    def _has_more(self, seconds: float) -> bool:
        return bool(select.select([self._file], [], [], seconds)[0])

    def note(self, data: bytes) -> bytes:
        """Receive what was read."""
        return data


class _StoppedError(Exception):
    """The reader was closed."""


class JournalReader(StreamReader):
    """Reads the entries of a journald unit, with ``journalctl``. Its position is the cursor of an entry."""

    def __init__(self, unit: str, envelopes: Envelopes, cursor: str | None, *, once: bool) -> None:
        command = ["journalctl", "--output=json", "--all", f"--unit={unit}", "--no-pager", "--quiet"]
        command += [] if once else ["--follow", "--no-tail"]
        command += [f"--after-cursor={cursor}"] if cursor else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._cursors: deque[tuple[int, str]] = deque()
        self._line = b""
        self._read_bytes = 0
        super().__init__(JOURNALD + unit, self._pipe(self._process.stdout).fileno(), envelopes)

    def note(self, data: bytes) -> bytes:
        """Note the cursor of each complete line."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._read_bytes += len(line) + 1
            if found := _CURSOR.search(self._line + line):
                self._cursors.append((self._read_bytes, found[1].decode()))
            self._line = b""
        self._read_bytes += len(rest)
        self._line = (self._line + rest)[:65_536]
        return data

    def cursor(self) -> str | None:
        """Return the cursor of the last entry that was taken, once; None if it is the same as before."""
        found = None
        while self._cursors and self._cursors[0][0] <= self.safe:
            found = self._cursors.popleft()[1]
        return found

    def failure(self) -> str:
        """Return why ``journalctl`` ended, after it has; an empty string if it succeeded."""
        code = self._process.wait()
        lines = self._pipe(self._process.stderr).read().decode("utf-8", "replace").strip().splitlines()
        return "" if code == 0 else f"journalctl ended with {code}: {lines[-1] if lines else 'it gives no reason'}"

    def close(self) -> None:
        """End ``journalctl``, and the thread."""
        super().close()
        self._process.terminate()
        self._process.wait()
        self.join()
        for stream in (self._process.stdout, self._process.stderr):
            self._pipe(stream).close()

    @staticmethod
    def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
        return cast("IO[bytes]", stream)
