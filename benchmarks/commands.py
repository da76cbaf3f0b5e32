"""CPU seconds and wall time of commands that people type, over a built store.

CPU is user and system time of the command alone: not of the process that answers it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMES = 3
STOPPED = {"query, stopped": ("query", "SELECT count() FROM events")}
"""While nothing runs: the command opens the store itself. By name: the arguments."""
RUNNING = {
    "query": ("query", "SELECT count() FROM events"),
    "grants list": ("grants", "list"),
    "grants show": ("grants", "show", "{grant}"),
    "findings list": ("findings", "list"),
}
REACH = {"help": 0.2, "query, stopped": 1.5, "query": 0.4, "grants list": 0.5}
"""CPU seconds that a command must stay under."""


def help_cpu_s() -> float:
    """Return the CPU seconds of ``grantledger --help``."""
    return _measured(("--help",), os.environ)["cpu_s"]


def measured(commands: Mapping[str, Sequence[str]], folder: Path, grant: str = "") -> dict[str, dict[str, float]]:
    """Return the medians of each command on a data folder."""
    environment = {**os.environ, "GRANTLEDGER_DATA_DIR": str(folder)}
    return {
        name: _measured([one.format(grant=grant) for one in arguments], environment)
        for name, arguments in commands.items()
    }


def _measured(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "grantledger.cli", *arguments]
    cpu, wall = [], []
    for _ in range(TIMES):
        before, began = _cpu(), time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        wall.append(time.monotonic() - began)
        cpu.append(_cpu() - before)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return {"cpu_s": round(statistics.median(cpu), 3), "wall_s": round(statistics.median(wall), 3)}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
