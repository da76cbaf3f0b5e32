"""Anonymous memory of a process: what it holds itself, without files that the system may drop."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType

INTERVAL_SECONDS = 0.02


def anonymous_mib(pid: int | str = "self") -> float:
    """Return RssAnon of a process, in MiB."""
    [kib] = re.findall(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kib) / 1024


class LargestMemory:
    """The largest anonymous memory of a process while the context is open, in MiB, looked at every 20 ms."""

    def __init__(self, pid: int | str = "self") -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="largest-memory", daemon=True)
        self.mib = anonymous_mib(pid)

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            try:
                self.mib = max(self.mib, anonymous_mib(self._pid))
            except (OSError, ValueError):  # the process has ended
                return

    def __enter__(self) -> LargestMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
