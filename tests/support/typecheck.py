"""mypy: strict over the package, and over tests and benchmarks only whether what they name exists.

The repository root is the package, so mypy is shown it under its real name. Tests and benchmarks that seldom run would
otherwise notice last that something has another name or other parameters.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IN_TESTS = ("attr-defined", "call-arg", "import-not-found", "name-defined")
"""What must not be wrong in tests and benchmarks. Strict types would make them longer, and no better."""


def main() -> int:
    """Return 0 if both are right."""
    stage = ROOT / "build" / "typecheck"
    stage.mkdir(parents=True, exist_ok=True)
    link = stage / "grantledger"
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    command = [*mypy(ROOT / "pyproject.toml", stage / "cache"), "-p", "grantledger"]
    return subprocess.run(command, cwd=stage, check=False).returncode or check_names(stage)


def mypy(config: Path, cache: Path) -> list[str]:
    """Return the command with a configuration."""
    return [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(cache)]


def check_names(stage: Path) -> int:
    """Print the errors of :data:`IN_TESTS` in tests and benchmarks, and return 1 if there are any."""
    command = [*mypy(ROOT / "tests" / "mypy.ini", stage / "cache-tests"), "--no-error-summary", "tests", "benchmarks"]
    environment = {**os.environ, "MYPYPATH": f"{ROOT / 'tests'}:{stage}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        print(done.stdout, done.stderr, file=sys.stderr)
        return done.returncode
    errors = [line for line in done.stdout.splitlines() if line.endswith(tuple(f"[{code}]" for code in IN_TESTS))]
    print(*errors or ["Success: what tests and benchmarks name exists"], sep="\n")
    return int(bool(errors))


if __name__ == "__main__":
    raise SystemExit(main())
