"""Child processes of the local stack: started, watched, started again when they die, stopped in order."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ..base.errors import EXIT_STOPPED, EXIT_USAGE
from .java import TiedProcess
from .process import status_path

SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
HEALTHY_SECONDS = 60.0
"""A process that ran so long before it died did not die of what killed it the time before."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process: its name, the arguments of ``grantledger``, and how long it may take to drain, in seconds."""

    name: str
    arguments: tuple[str, ...]
    drain: float = 20.0


class Child:
    """One process of the stack. ``watch`` is called now and then and starts it again when it has died."""

    def __init__(self, spec: ChildSpec, data_dir: Path, environment: Mapping[str, str]) -> None:
        self.spec = spec
        self._data_dir, self._environment = data_dir, dict(environment)
        self._process: TiedProcess | None = None
        self._not_before = 0.0
        self._pause = SHORTEST_PAUSE
        self._started = 0.0
        self.restarts = 0
        self.gave_up: str | None = None

    @property
    def log_path(self) -> Path:
        """Where the process writes its log."""
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
        command = [sys.executable, "-m", "grantledger.cli", *self.spec.arguments]
        self._process = TiedProcess(command, cwd=Path.cwd(), output=self.log_path, environment=self._environment)
        self._started, self._not_before = time.monotonic(), 0.0

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs, and before it was started."""
        return self._process.returncode if self._process is not None else None

    def watch(self) -> None:
        """Start a dead process again, after a pause that grows; give up where starting again changes nothing."""
        if self.gave_up is not None or self.alive():
            return
        if self.exit_code in (EXIT_USAGE, EXIT_STOPPED):
            self.gave_up = self.last_words()
            return
        now = time.monotonic()
        if self._not_before == 0.0:
            if now - self._started > HEALTHY_SECONDS:
                self._pause = SHORTEST_PAUSE
            self._not_before = now + self._pause
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
        elif now >= self._not_before:
            self.restarts += 1
            self.start()

    def last_words(self) -> str:
        """Return the last line of the log that is a plain sentence, for people."""
        try:
            lines = self.log_path.read_text("utf-8", "replace").splitlines()[-20:]
        except OSError:
            return f"see {self.log_path}"
        plain = [line for line in lines if line.startswith("grantledger: ")]
        return plain[-1].removeprefix("grantledger: ") if plain else f"see {self.log_path}"

    def stop(self) -> bool:
        """Ask the process to drain and wait; kill it when it takes too long. Returns whether it drained."""
        if self._process is None or not self.alive():
            return True
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(self.spec.drain):
            return True
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(5.0)
        return False

    def metrics(self) -> dict[tuple[str, str], float]:
        """Return the samples of the process's metrics endpoint, by name and labels; none while it does not answer."""
        try:
            status = json.loads(status_path(self._data_dir, self.spec.name).read_text())
            with urllib.request.urlopen(status["metrics"], timeout=1.0) as answer:  # noqa: S310 - our own loopback address
                text = answer.read().decode()
        except (OSError, ValueError, KeyError, HTTPException):
            return {}
        samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                samples[sample.name, labels] = sample.value
        return samples


def environment_for(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with settings for children put in."""
    return {**os.environ, **{f"GRANTLEDGER_{name.upper()}": value for name, value in settings.items()}}
