"""The benchmarks run: small, because their figures mean something only on a quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("bench.json", "benchmarks.main", "--events", "20000", "--repeat", "1", "--no-memory"),
        (
            "bench-gateway.json",
            "benchmarks.gateway",
            "--seconds",
            "2",
            "--connections",
            "4",
            "--rate",
            "50",
            "--outage",
            "6",
        ),
        ("bench-watch.json", "benchmarks.watch", "--grants", "2000", "--seconds", "5"),
    ],
    ids=lambda command: command[1],
)
def test_a_benchmark_measures(command: tuple[str, ...]) -> None:
    result, *command = command
    target = ROOT / "build" / result
    target.unlink(missing_ok=True)
    call = [sys.executable, "-m", *command]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(target.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["benchmarks.adapters", "benchmarks.redaction"])
def test_a_benchmark_of_samples_measures_every_tool(module: str, samples: Path) -> None:
    call = [sys.executable, "-m", module, str(samples)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert measured == ["cloudtrail", "hoop", "kubernetes", "okta", "sudo", "teleport", "vault"]
