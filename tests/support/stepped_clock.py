"""The product's command line with clocks that a test sets while it runs.

Run by path, with a file and the arguments of ``grantledger``: what the module ``time`` says is off by what the file
says just then, but for the time since boot and the one that timers go by. ``datetime`` is as it was. Kafka, which is
another process, keeps the right time, as the brokers of a real deployment do.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from grantledger.runtime.children import Child, ChildSpec
from grantledger.runtime.tied_process import start_tied


class SteppedChild(Child):
    """A process of the product whose clocks can be set."""

    def __init__(self, name: str, data_dir: Path, environment: dict[str, str]) -> None:
        super().__init__(ChildSpec(name, ("run", name)), data_dir, environment)
        self._offsets = data_dir / "clock.json"
        self._values = {"wall": 0.0, "awake": 0.0}
        self.set()

    def set(self, **seconds: float) -> None:
        """Set how far the wall clock (``wall``) or the time awake since boot (``awake``) is ahead, all in one go."""
        self._values |= seconds
        self._offsets.parent.mkdir(parents=True, exist_ok=True)
        draft = self._offsets.with_suffix(".draft")
        draft.write_text(json.dumps(self._values))
        draft.rename(self._offsets)

    def start(self) -> None:
        """Start the process, or start it again; its log begins anew."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(Path(__file__)), str(self._offsets), *self.spec.arguments]
        self._process = start_tied(command, cwd=Path.cwd(), output=self.log_path, environment=self._environment)


def set_clocks_by(offsets: Path) -> None:
    """Put clocks in the place of Python's."""

    def ahead(name: str) -> float:
        seconds: float = json.loads(offsets.read_text())[name]
        return seconds

    seconds, nanos, awake = time.time, time.time_ns, time.monotonic_ns
    time.time = lambda: seconds() + ahead("wall")
    time.time_ns = lambda: nanos() + int(ahead("wall") * 1_000_000_000)
    time.monotonic_ns = lambda: awake() + int(ahead("awake") * 1_000_000_000)


def main() -> None:
    """Set the clocks, then be ``grantledger``."""
    sys.path.pop(0)  # this folder, whose modules have names that others may have too
    set_clocks_by(Path(sys.argv.pop(1)))
    from grantledger.cli import main as grantledger

    grantledger()


if __name__ == "__main__":
    main()
