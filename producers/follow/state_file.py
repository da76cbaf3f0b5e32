"""The file with the positions: read at the start, and replaced as a whole after acknowledgements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...base.errors import DependencyError, UsageError
from ...base.files import lock_file, write_whole
from .position import FilePosition


class StateError(UsageError):
    """The file with the positions cannot be used. The message names the remedy."""


class StateNotWrittenError(DependencyError):
    """The positions cannot be written, for example because the disk is full."""


class ToolState(BaseModel):
    """What is kept of one tool.

    Attributes:
        since: time of the first look at its files, in nanoseconds since 1970.
        positions: of its files.
        cursors: the last acknowledged entry of each journald unit.
    """

    model_config = ConfigDict(extra="forbid")

    since: int
    positions: list[FilePosition] = []
    cursors: dict[str, str] = {}


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    tools: dict[str, ToolState]


class StateFile:
    """The file, and the lock beside it that keeps a second process away."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file. The kernel frees it however the process ends.

        Raises:
            StateError: another process holds it, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = lock_file(self.path.with_name(f"{self.path.name}.lock"))
        except BlockingIOError:
            raise StateError(
                f"another process follows with the positions in {self.path}; give this one a file of its own (--state)"
            ) from None
        except OSError as error:
            raise StateError(f"{error.filename}: {error.strerror} (--state)") from error
        with lock:
            yield

    def read(self) -> dict[str, ToolState]:
        """Return what is kept of each tool; nothing before the first start.

        Raises:
            StateError: the file is damaged or cannot be read.
        """
        try:
            return _State.model_validate(json.loads(self.path.read_bytes())).tools
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"{self.path}: cannot be read: {error.strerror} (--state)") from error
        except (ValueError, ValidationError) as error:
            problem = str(error).splitlines()[0]
            raise StateError(
                f"{self.path}: not a file of positions ({problem}). Move it away and start again: all files are read "
                "from their beginnings. Their events have the same ids, so nothing counts twice"
            ) from None

    def write(self, tools: Mapping[str, ToolState]) -> None:
        """Replace the file. It is on disk when this returns, or unchanged.

        Raises:
            StateNotWrittenError: it cannot be written.
        """
        body = {"version": 1, "tools": {name: _plain(state) for name, state in tools.items()}}
        content = json.dumps(body, separators=(",", ":")).encode()
        try:
            write_whole(self.path, self.path.with_name(f"{self.path.name}.new"), content)
        except OSError as error:
            raise StateNotWrittenError(f"{self.path}: cannot be written: {error.strerror} (--state)") from error


def _plain(state: ToolState) -> dict[str, object]:
    return {"since": state.since, "positions": [asdict(one) for one in state.positions], "cursors": state.cursors}
