"""Strict mypy over the package. The repository root is the package, so mypy is shown it under its real name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    stage = ROOT / "build" / "typecheck"
    stage.mkdir(parents=True, exist_ok=True)
    link = stage / "grantledger"
    if not link.is_symlink():
        link.symlink_to(ROOT, target_is_directory=True)
    command = [
        sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"),
        "--cache-dir", str(stage / "cache"), "-p", "grantledger",
    ]  # fmt: skip
    return subprocess.run(command, cwd=stage, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
