"""The anchor target ``file``: one JSON object a line, appended and synced. Put the file on storage of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..ledger.anchor import Anchor, AnchorTargetError, anchor_entry

MAX_LINE = 4 << 20


class FileTarget:
    """Appends anchors to a file. Each line has index, time, checkpoint bodies and the signed note."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def publish(self, anchor: Anchor) -> bytes:
        """Append one anchor unless the file has it, and return path and end offset as the receipt.

        Raises:
            AnchorTargetError: the file cannot be written, or holds another anchor of this index.
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
                if last is not None and last["index"] >= anchor.index:
                    if last["index"] == anchor.index and last["note"] != anchor.note:
                        raise AnchorTargetError(f"{self._path} holds another anchor {anchor.index}: two histories")
                else:
                    end = file.seek(0, os.SEEK_END)
                    file.seek(max(0, end - 1))
                    torn = end > 0 and file.read(1) != b"\n"  # a line cut off by a crash stays, on a line of its own
                    file.write((b"\n" if torn else b"") + line.encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                return f"{self._path}:{file.seek(0, os.SEEK_END)}".encode()
        except OSError as error:
            raise AnchorTargetError(f"{self._path} cannot be written: {error.strerror} (anchor_file)") from error

    @staticmethod
    def _last(file: Any) -> dict[str, Any] | None:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - MAX_LINE))
        for line in reversed(file.read().split(b"\n")):
            try:
                parsed = json.loads(line)
            except ValueError:
                continue
            if isinstance(parsed, dict) and isinstance(parsed.get("index"), int) and "note" in parsed:
                return parsed
        return None


def read_anchor_file(path: Path) -> Iterator[Anchor]:
    """Yield the anchors in a file written by this target; lines that are none are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            try:
                parsed = json.loads(line)
                bodies = tuple(parsed["bodies"])
                entry = anchor_entry(parsed["time_ms"], bodies)
                yield Anchor(
                    parsed["origin"], parsed["index"], parsed["time_ms"], bodies, entry,
                    bytes.fromhex(parsed["frontier"]), parsed["note"],
                )  # fmt: skip
            except (ValueError, KeyError, TypeError):
                continue
