"""The product's command line with clocks that a test sets while it runs.

Usage: ``python stepped_clock.py FILE ARGUMENTS``, with the arguments of ``grantledger``. A test writes to FILE by how
much the clocks of the module ``time`` are to be off. The time since boot, timers and ``datetime`` are not changed, and
Kafka, a separate process, keeps the right time.
"""

from __future__ import annotations

import json
import subprocess
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
        """Set how far the wall clock (``wall``) and the time awake since boot (``awake``) are ahead, atomically."""
        self._values |= seconds
        self._offsets.parent.mkdir(parents=True, exist_ok=True)
        draft = self._offsets.with_suffix(".draft")
        draft.write_text(json.dumps(self._values))
        draft.rename(self._offsets)

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__)), str(self._offsets), *self.spec.arguments]
        return start_tied(command, cwd=Path.cwd(), output=self.log_path, environment=self._environment)


def set_clocks_by(offsets: Path) -> None:
    """Replace Python's clocks."""

    def ahead(name: str) -> float:
        seconds: float = json.loads(offsets.read_text())[name]
        return seconds

    seconds, nanos, awake = time.time, time.time_ns, time.monotonic_ns
    time.time = lambda: seconds() + ahead("wall")
    time.time_ns = lambda: nanos() + int(ahead("wall") * 1_000_000_000)
    time.monotonic_ns = lambda: awake() + int(ahead("awake") * 1_000_000_000)


def main() -> None:
    """Replace the clocks, then run ``grantledger``."""
    sys.path.pop(0)  # this folder: its module names could hide others
    set_clocks_by(Path(sys.argv.pop(1)))
    from grantledger.cli import main as grantledger

    grantledger()


if __name__ == "__main__":
    main()
