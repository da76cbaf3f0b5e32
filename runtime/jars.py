"""The jars of the local Kafka: fetched once into the user's cache, and checked against ``jars.lock`` at every start."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .java import PrerequisiteError

KAFKA_VERSION = "4.2.0"
LOCK_FILE = Path(__file__).with_name("jars.lock")
_HTTP_SECONDS = 60

Progress = Callable[[str], None]
"""Receives one line for people before each slow step."""


@dataclass(frozen=True)
class Artifact:
    """One pinned jar: its Maven coordinates, and the SHA-256 of the file in hexadecimal."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """Maven's name for the file."""
        return f"{self.name}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.name}:{self.version}"


def read_lock() -> list[Artifact]:
    """Return the artifacts in the lock file."""
    artifacts = []
    for line in LOCK_FILE.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            coordinates, sha256 = line.split()
            group, name, version = coordinates.split(":")
            artifacts.append(Artifact(group, name, version, sha256))
    return artifacts


def find_mismatch(folder: Path, artifacts: Sequence[Artifact]) -> str | None:
    """Return how the first jar in a folder differs from the pinned one; None if all are right."""
    for artifact in artifacts:
        try:
            with (folder / artifact.filename).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{artifact}: {folder / artifact.filename} cannot be read: {error.strerror}"
        if found != artifact.sha256:
            return f"{artifact} is not the pinned jar: its SHA-256 is {found}, not {artifact.sha256}"
    return None


def default_cache() -> Path:
    """Return the user's cache folder for grantledger: in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grantledger"


def ensure_jars(cache: Path, report: Progress) -> list[Path]:
    """Return the jars of Kafka in the order of the lock file; fetch them if one is missing or damaged.

    Several processes may call this at the same time: one fetches, the others wait.
    """
    artifacts = read_lock()
    folder = cache / f"kafka-{KAFKA_VERSION}"
    if find_mismatch(folder, artifacts) is not None:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if find_mismatch(folder, artifacts) is not None:  # no other process has fetched them meanwhile
                _replace(folder, artifacts, report)
    return [folder / artifact.filename for artifact in artifacts]


def _replace(folder: Path, artifacts: Sequence[Artifact], report: Progress) -> None:
    for left in folder.parent.glob(f"{folder.name}.tmp-*"):  # of a killed process: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.tmp-", dir=folder.parent) as temporary:
        fetched = Path(temporary) / "jars"
        fetched.mkdir()
        _fetch(fetched, artifacts, report)
        if problem := find_mismatch(fetched, artifacts):
            raise PrerequisiteError(f"{problem}. It was not used. The Maven repository may have a damaged copy.")
        if folder.exists():
            folder.rename(Path(temporary) / "replaced")
        fetched.rename(folder)


def _fetch(target: Path, artifacts: Sequence[Artifact], report: Progress) -> None:
    """Fetch every artifact with jgo, from Maven Central or the repositories in the user's ``jgo.conf``."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext

        # Our own folder: jgo would use files in the user's repository unchecked, even half-written ones.
        context = MavenContext(repo_cache=target.parent / "repository", timeout=_HTTP_SECONDS)
        context.remote_repos.update(GlobalSettings.load().repositories)
        for number, artifact in enumerate(artifacts, start=1):
            report(f"fetching Kafka {KAFKA_VERSION}: {number} of {len(artifacts)}, {artifact.filename}")
            # The lock file names every jar, so jgo has no dependencies to resolve.
            path = context.project(artifact.group, artifact.name).at_version(artifact.version).artifact().resolve()
            path.rename(target / artifact.filename)
    except (ImportError, OSError, RuntimeError) as error:  # errors of requests are OSErrors, those of jgo RuntimeErrors
        raise PrerequisiteError(
            f"the {len(artifacts)} jars of Kafka {KAFKA_VERSION} cannot be fetched: {error}\n"
            "This needs jgo (`pip install 'grantledger[embedded]'`) and a Maven repository, once. For a mirror, add "
            "`central = https://…` to [repositories] in ~/.config/jgo.conf. For a machine without network, copy the "
            f"folder {default_cache() / f'kafka-{KAFKA_VERSION}'} from another."
        ) from error
