"""The jars of the local Kafka: pinned by SHA-256 in ``jars.lock``, fetched once into a cache of the user.

Two ways to fetch, in this order: Maven's ``mvn``, which follows the user's own Maven settings (mirrors, proxies), and
``jgo`` from PyPI, which needs no Java tool. What comes out of either is checked against the lock before it is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .java import PrerequisiteError

KAFKA_VERSION = "4.2.0"
LOCK_FILE = Path(__file__).with_name("jars.lock")
POM_FILE = Path(__file__).with_name("jars.pom.xml")

_MARKER = "verified"
_FETCH_SECONDS = 900
_HTTP_SECONDS = 60

Progress = Callable[[str], None]


class JarMismatchError(PrerequisiteError):
    """A jar is not the one that was pinned. Nothing was put in place; the text names the artifact and both SHA-256."""


@dataclass(frozen=True)
class Artifact:
    """One pinned jar: Maven coordinates and the SHA-256 of the file, lower-case hex."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """The name Maven gives the file."""
        return f"{self.name}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.name}:{self.version}"


def parse_lock(text: str) -> tuple[Artifact, ...]:
    """Parse ``group:artifact:version sha256`` lines; empty lines and ``#`` comments are skipped.

    Raises `ValueError` with the line number for a malformed or repeated line, and for a lock without artifacts.
    """
    artifacts: dict[str, Artifact] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            coordinates, sha256 = stripped.split()
            group, name, version = coordinates.split(":")
            if len(bytes.fromhex(sha256)) != 32:
                raise ValueError
        except ValueError:
            raise ValueError(f"line {number}: expected `group:artifact:version sha256`, got {stripped!r}") from None
        artifact = Artifact(group, name, version, sha256.lower())
        if artifact.filename in artifacts:
            raise ValueError(f"line {number}: {artifact.filename} is listed twice")
        artifacts[artifact.filename] = artifact
    if not artifacts:
        raise ValueError("no artifacts")
    return tuple(artifacts.values())


def verify_jars(folder: Path, artifacts: Sequence[Artifact]) -> None:
    """Check that every artifact is in `folder` with its SHA-256, else raise `JarMismatchError` naming the first."""
    for artifact in artifacts:
        path = folder / artifact.filename
        if not path.is_file():
            raise JarMismatchError(f"{artifact} is missing: no {artifact.filename}; pinned SHA-256 {artifact.sha256}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != artifact.sha256:
            raise JarMismatchError(
                f"{artifact} is not the pinned jar:\n  expected SHA-256 {artifact.sha256}\n  found SHA-256    {found}\n"
                "It was not used. A damaged copy may sit in your local Maven repository or a mirror: remove it there."
            )


def default_cache() -> Path:
    """The user's cache folder for grantledger: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``grantledger``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grantledger"


def ensure_jars(cache: Path | None = None, on_progress: Progress | None = None) -> list[Path]:
    """Return the jars of Kafka in the order of the lock file, fetched and verified first if they are not in the cache.

    `cache` stands for `default_cache`; the jars live in ``kafka-<version>`` below it. `on_progress` gets short lines
    for a person to read while something slow happens. Safe when several processes call it at once: one fetches, the
    others wait. A warm call compares file sizes with those seen when the SHA-256 were checked, and hashes nothing.

    Raises `JarMismatchError` when a fetched jar is not the pinned one, `PrerequisiteError` when none can be fetched.
    """
    lock_text = LOCK_FILE.read_text(encoding="utf-8")
    artifacts = parse_lock(lock_text)
    root = default_cache() if cache is None else cache
    folder = root / f"kafka-{KAFKA_VERSION}"
    lock_digest = hashlib.sha256(lock_text.encode()).hexdigest()
    jars = [folder / artifact.filename for artifact in artifacts]
    if _is_verified(folder, lock_digest, artifacts):
        return jars
    report = on_progress or (lambda line: None)
    root.mkdir(parents=True, exist_ok=True)
    with _exclusive(root / f"{folder.name}.lock"):
        if _is_verified(folder, lock_digest, artifacts):
            return jars  # another process fetched while we waited
        try:
            verify_jars(folder, artifacts)
        except JarMismatchError:
            _fetch_into(folder, lock_digest, artifacts, report)
        else:
            _write_marker(folder, lock_digest, artifacts)
    return jars


def _fetch_into(folder: Path, lock_digest: str, artifacts: Sequence[Artifact], report: Progress) -> None:
    for left in folder.parent.glob(f"{folder.name}.tmp-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.tmp-", dir=folder.parent) as temporary:
        fetched = Path(temporary) / "jars"
        fetched.mkdir()
        _fetch(fetched, artifacts, report)
        verify_jars(fetched, artifacts)
        _write_marker(fetched, lock_digest, artifacts)
        if folder.exists():  # incomplete or damaged, else we were not here
            folder.rename(Path(temporary) / "replaced")
        fetched.rename(folder)


def _fetch(target: Path, artifacts: Sequence[Artifact], report: Progress) -> None:
    """Fill `target` by the first way that works."""
    failures: list[str] = []
    for way, fetch in (("mvn", _fetch_with_mvn), ("jgo", _fetch_with_jgo)):
        try:
            fetch(target, artifacts, report)
        except PrerequisiteError as failure:
            failures.append(f"  {way}: {failure}\n")
        else:
            return
    raise PrerequisiteError(
        f"the {len(artifacts)} jars of Kafka {KAFKA_VERSION} are not in the cache and could not be fetched.\n"
        + "".join(failures)
        + "Either put Maven's `mvn` on the PATH, or install jgo: `pip install jgo` (`grantledger[embedded]` has it).\n"
        "Both need to reach a Maven repository once. For a machine without network, copy the folder "
        f"{target.parent.parent / f'kafka-{KAFKA_VERSION}'} from another."
    )


def _fetch_with_mvn(target: Path, artifacts: Sequence[Artifact], report: Progress) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise PrerequisiteError("not on the PATH")
    report(f"fetching Kafka {KAFKA_VERSION} with mvn ({len(artifacts)} jars, about 43 MB, once)")
    # Maven may write beside the pom, which may be in a read-only site-packages.
    pom = Path(shutil.copyfile(POM_FILE, target.parent / "pom.xml"))
    command = [mvn, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PrerequisiteError(str(error)) from error
    if result.returncode != 0:
        last = "\n    ".join((result.stdout + result.stderr).strip().splitlines()[-5:])
        raise PrerequisiteError(f"{mvn} ended with status {result.returncode}:\n    {last}")


def _fetch_with_jgo(target: Path, artifacts: Sequence[Artifact], report: Progress) -> None:
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise PrerequisiteError(f"not installed ({error})") from error
    # Our own repository folder: jgo takes what lies in the user's as it is, half-written files included.
    repositories = GlobalSettings.load().repositories
    context = MavenContext(repo_cache=target.parent / "repository", timeout=_HTTP_SECONDS)
    context.remote_repos.update(repositories)
    for number, artifact in enumerate(artifacts, start=1):
        report(f"fetching Kafka {KAFKA_VERSION} with jgo: {number} of {len(artifacts)}, {artifact.filename}")
        try:
            # The lock names every jar, so nothing is left for jgo to resolve.
            path = context.project(artifact.group, artifact.name).at_version(artifact.version).artifact().resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's are RuntimeErrors
            raise PrerequisiteError(f"{artifact}: {error}") from error
        path.rename(target / artifact.filename)


def _write_marker(folder: Path, lock_digest: str, artifacts: Sequence[Artifact]) -> None:
    sizes = [f"{(folder / artifact.filename).stat().st_size} {artifact.filename}\n" for artifact in artifacts]
    temporary = folder / f"{_MARKER}.tmp"
    temporary.write_text(f"{lock_digest}\n{''.join(sizes)}", encoding="utf-8")
    temporary.replace(folder / _MARKER)


def _is_verified(folder: Path, lock_digest: str, artifacts: Sequence[Artifact]) -> bool:
    """Whether the SHA-256 of this very lock were checked here before and the files still have their sizes."""
    try:
        first, *lines = (folder / _MARKER).read_text(encoding="utf-8").splitlines()
        sizes = {name: int(size) for size, name in (line.split(" ", 1) for line in lines)}
        same = all((folder / item.filename).stat().st_size == sizes[item.filename] for item in artifacts)
    except (OSError, ValueError, KeyError):
        return False
    return same and first == lock_digest


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
