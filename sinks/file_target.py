"""The anchor target ``file``: one JSON object per line, appended and synced. Put the file on separate storage."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..ledger.anchor import (
    Anchor,
    AnchorConflictError,
    AnchorError,
    AnchorGapError,
    AnchorTargetError,
    anchor_entry,
    check_extends,
)
from ..ledger.entry import split_origin

MAX_LINE = 4 << 20


class FileTarget:
    """Appends anchors to a file. Each line has index, time, checkpoint bodies and the signed note."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def publish(self, anchor: Anchor) -> bytes:
        """Append one anchor unless the file contains it, and return path and end offset as the receipt.

        The anchor must extend the last one in the file: its index, its tree, and the head that a new epoch binds.
        """
        line = json.dumps(
            {
                "origin": anchor.origin,
                "index": anchor.index,
                "time": datetime.fromtimestamp(anchor.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
                "time_ms": anchor.time_ms,
                "bodies": list(anchor.bodies),
                "frontier": anchor.frontier.hex(),
                "note": anchor.note,
            },
            ensure_ascii=False,
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                last = self._last(file)
                if last is None or not self._holds(last, anchor):
                    end = file.seek(0, os.SEEK_END)
                    file.seek(max(0, end - 1))
                    torn = end > 0 and file.read(1) != b"\n"  # a line that a crash truncated stays
                    file.write((b"\n" if torn else b"") + line.encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                return f"{self._path}:{file.seek(0, os.SEEK_END)}".encode()
        except OSError as error:
            raise AnchorTargetError(f"{self._path} cannot be written: {error.strerror} (anchor_file)") from error

    def last(self) -> Anchor | None:
        """Return the last anchor in the file, unverified."""
        try:
            with self._path.open("rb") as file:
                return self._last(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AnchorTargetError(f"{self._path} cannot be read: {error.strerror} (anchor_file)") from error

    def _holds(self, last: Anchor, anchor: Anchor) -> bool:
        """Return whether the file contains the anchor; False if it is the next one."""
        if last.origin == anchor.origin:
            if last.index >= anchor.index:
                self._compare(anchor)
                return True
            if last.index + 1 < anchor.index:
                message = f"{self._path} lacks anchors {last.index + 1} to {anchor.index - 1} (anchor_file)"
                raise AnchorGapError(message, last.index + 1)
        elif split_origin(last.origin)[0] != split_origin(anchor.origin)[0]:
            raise AnchorConflictError(f"{self._path} belongs to {last.origin}, not to {anchor.origin} (anchor_file)")
        elif anchor.index > 0:
            raise AnchorGapError(f"{self._path} lacks the first anchors of {anchor.origin} (anchor_file)", 0)
        try:
            check_extends(last, anchor)
        except (AnchorError, ValueError) as error:
            raise AnchorConflictError(f"{self._path}: {error} (anchor_file)") from error
        return False

    def _compare(self, anchor: Anchor) -> None:
        """Check that the older anchor with this index in the file is the same one."""
        for known in read_anchor_file(self._path):
            if known.index == anchor.index and known.origin == anchor.origin:
                if known.note == anchor.note:
                    return
                break
        raise AnchorConflictError(
            f"{self._path} goes on beyond anchor {anchor.index} with another history: two histories"
        )

    @staticmethod
    def _last(file: BinaryIO) -> Anchor | None:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - MAX_LINE))
        for line in reversed(file.read().split(b"\n")):
            anchor = _parse(line)
            if anchor is not None:
                return anchor
        return None


def read_anchor_file(path: Path) -> Iterator[Anchor]:
    """Yield the anchors in a file written by this target; other lines are skipped.

    Raises:
        OSError: the file cannot be read.
    """
    return (anchor for anchor in scan_anchor_file(path) if anchor is not None)


def scan_anchor_file(path: Path, size: int | None = None) -> Iterator[Anchor | None]:
    """Yield the anchor of each line that is not blank, None if it is not an anchor. As :func:`read_anchor_file`.

    Args:
        size: end with the last line in the first so many bytes; None for the whole file.
    """
    done = 0
    with path.open("rb") as file:
        for line in file:
            done += len(line)
            if size is not None and done > size:
                return
            if line.strip():
                yield _parse(line)


def _parse(line: bytes) -> Anchor | None:
    """Return the anchor in a line, or None: a line may be truncated or come from another program."""
    try:
        parsed = json.loads(line)
        origin, index, time_ms = parsed["origin"], parsed["index"], parsed["time_ms"]
        bodies, note = tuple(parsed["bodies"]), parsed["note"]
        frontier = bytes.fromhex(parsed["frontier"])
        texts = all(isinstance(text, str) for text in (origin, note, *bodies))
        if not texts or type(index) is not int or type(time_ms) is not int or index < 0:
            return None
        return Anchor(origin, index, time_ms, bodies, anchor_entry(time_ms, bodies), frontier, note)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        return None
