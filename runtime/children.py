"""Child processes of the local stack: start, supervise, restart after a failure, stop in order."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..base.errors import EXIT_OK, EXIT_STOPPED, EXIT_USAGE
from .process import Samples, read_samples
from .process_health import ProcessHealth, read_health
from .tied_process import start_tied, stop_tied

SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
HEALTHY_SECONDS = 60.0
"""A restarted process that runs this long is healthy: its previous failure is gone."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process.

    Attributes:
        name: for people; the process writes its status file under this name.
        arguments: those of ``grantledger``.
        drain: limit of a stop, in seconds.
        ends: exit code 0 means that its work is done. Other processes are restarted after any exit.
        environment: what it needs besides the environment of all.
    """

    name: str
    arguments: tuple[str, ...]
    drain: float = 20.0
    ends: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One supervised process. Call ``restart_if_failed`` regularly: it restarts the process after a failure."""

    def __init__(self, spec: ChildSpec, data_dir: Path, environment: Mapping[str, str]) -> None:
        self.spec = spec
        self._data_dir, self._environment = data_dir, {**environment, **spec.environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._pause = SHORTEST_PAUSE
        self._started = 0.0
        self._failure = ""
        self.restarts = 0
        self.gave_up: str | None = None

    @property
    def log_path(self) -> Path:
        """The log of the process."""
        return self._data_dir / "logs" / f"{self.spec.name}.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self.alive() and self._process is not None else None

    def start(self) -> None:
        """Start the process."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        self._process = self._launch()
        self._started, self._not_before = time.monotonic(), 0.0

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "grantledger.cli", *self.spec.arguments]
        return start_tied(command, cwd=Path.cwd(), output=self.log_path, environment=self._environment)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the process runs, and before it is started."""
        return self._process.poll() if self._process is not None else None

    def restart_if_failed(self) -> None:
        """Restart a failed process after a growing pause; give up after an exit code that a restart does not change."""
        if self.gave_up is not None or self.alive() or self._done():
            return
        if self.exit_code in (EXIT_USAGE, EXIT_STOPPED):
            self.gave_up = self.last_error()
            return
        now = time.monotonic()
        if self._not_before == 0.0:
            self._failure = self.last_error()  # before the restart moves the log away
            if now - self._started > HEALTHY_SECONDS:
                self._pause = SHORTEST_PAUSE
            self._not_before = now + self._pause
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
        elif now >= self._not_before:
            self.restarts += 1
            self.start()

    def _done(self) -> bool:
        return self.spec.ends and self.exit_code == EXIT_OK

    @property
    def trouble(self) -> str | None:
        """What is wrong with the process, for people; None once it has been healthy for a minute."""
        if self.gave_up is not None:
            return f"{self.spec.name} has stopped: {self.gave_up}"
        if not self.alive() and not self._done():
            return f"{self.spec.name} is down: {self._failure or self.last_error()}"
        if self.restarts and time.monotonic() - self._started < HEALTHY_SECONDS:
            times = "once" if self.restarts == 1 else f"{self.restarts} times"
            return f"{self.spec.name} was restarted {times}: {self._failure}"
        return None

    def last_error(self) -> str:
        """Return the last error message in the log, or where the log is."""
        try:
            lines = self.log_path.read_text("utf-8", "replace").splitlines()[-20:]
        except OSError:
            return f"see {self.log_path}"
        errors = [line for line in lines if line.startswith("grantledger: ")]
        return errors[-1].removeprefix("grantledger: ") if errors else f"see {self.log_path}"

    def stop(self) -> bool:
        """Let the process drain, and kill it if that takes too long. Returns whether it drained."""
        return self._process is None or not self.alive() or stop_tied(self._process, self.spec.drain)

    def health(self) -> ProcessHealth | None:
        """Return what the process says of itself; None while it does not answer."""
        return read_health(self._data_dir, self.spec.name)

    def metrics(self) -> Samples:
        """Return the samples of the metrics endpoint; none while it does not answer."""
        return read_samples(self._data_dir, self.spec.name)
