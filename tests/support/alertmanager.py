"""Debian's prometheus-alertmanager, amtool and promtool: from the PATH, or unpacked into the user's cache.

Nothing is installed and no root is needed: ``apt-get download`` fetches the packages, ``dpkg -x`` unpacks them. The
versions below are pinned by SHA-256. If the Debian archive no longer has them, its current versions are used, with the
signature that apt checks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grantledger.runtime.jars import default_cache
from grantledger.runtime.loopback_ports import free_port

from .real_programs import child

PACKAGES = ("prometheus", "prometheus-alertmanager")
PINNED = {
    ("prometheus", "2.42.0+ds-5+deb12u1", "amd64"): "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
    ("prometheus-alertmanager", "0.25.0-1+b4", "amd64"): (
        "4fb9aed15cfe8e0c32408e643ab32a1e41ee87d2cc26f18aeba928b1b0b98ae7"
    ),
}
"""SHA-256 of the archives, by package, version and architecture: Debian 12."""
PROGRAMS = ("promtool", "amtool", "prometheus-alertmanager")
CONFIG = """\
route:
  receiver: none
receivers:
  - name: none
"""


class UnavailableError(Exception):
    """The programs are neither installed nor can they be fetched; the message has the reason."""


def programs(cache: Path | None = None) -> dict[str, Path]:
    """Return the programs by name.

    Raises:
        UnavailableError: they are not on the PATH, and there is no apt, or it cannot fetch them.
    """
    found = {name: shutil.which(name) for name in PROGRAMS}
    if all(found.values()):
        return {name: Path(path) for name, path in found.items() if path}
    root = cache or default_cache()
    folder = root / "prometheus-debian"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "prometheus-debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes run: one fetches
        if not (folder / "complete").exists():
            _fetch(root, folder)
    return {name: folder / "usr" / "bin" / name for name in PROGRAMS}


def programs_or_skip() -> dict[str, Path]:
    """Return the programs. Without them, skip the test, except in CI on a machine with apt."""
    try:
        return programs()
    except UnavailableError as error:
        if os.environ.get("CI") and shutil.which("apt-get"):
            raise
        pytest.skip(f"no Alertmanager and promtool: {error}")


def _fetch(root: Path, folder: Path) -> None:
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UnavailableError(f"not on the PATH, and fetching them needs {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="prometheus-debian.tmp-", dir=root) as made:
        work = Path(made)
        unpacked = work / "unpacked"
        try:
            archives = [_download(package, work, []) for package in PACKAGES]
        except UnavailableError:
            own = _own_lists(work)  # a fresh container has no package lists, and only root can write them
            archives = [_download(package, work, own) for package in PACKAGES]
        for package, archive in zip(PACKAGES, archives, strict=True):
            version, architecture = (_run(["dpkg-deb", "-f", archive, name]) for name in ("Version", "Architecture"))
            pinned = PINNED.get((package, version, architecture))
            sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
            if pinned is not None and pinned != sha256:
                raise UnavailableError(f"{archive.name} has SHA-256 {sha256}, pinned is {pinned}: not used")
            _run(["dpkg", "-x", archive, unpacked])
        absent = [name for name in PROGRAMS if not (unpacked / "usr" / "bin" / name).is_file()]
        if absent:
            raise UnavailableError(f"the packages do not contain {', '.join(absent)}")
        _relocate(unpacked / "usr" / "bin" / "prometheus-alertmanager")
        (unpacked / "complete").touch()
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)


def _relocate(program: Path) -> None:
    """Make Debian's Alertmanager look for its templates below its working directory instead of ``/usr/share``."""
    absolute = b"/usr/share/prometheus/alertmanager"
    program.write_bytes(program.read_bytes().replace(absolute, absolute[1:] + b"/"))  # of the same length


def _download(package: str, work: Path, options: list[str]) -> Path:
    """Fetch the pinned version, or the archive's current one."""
    architecture = _run(["dpkg", "--print-architecture"])
    versions = [version for name, version, machine in PINNED if (name, machine) == (package, architecture)]
    problem = UnavailableError(package)
    for wanted in [*(f"{package}={version}" for version in versions), package]:
        try:
            _run(["apt-get", *options, "-q", "download", wanted], work)
        except UnavailableError as error:
            problem = error
        else:
            return next(work.glob(f"{package}_*.deb"))
    raise problem


def _own_lists(work: Path) -> list[str]:
    """Fetch package lists into this folder, and return the apt options that use them."""
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    options = ["-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}/cache", "-o", "APT::Sandbox::User="]
    _run(["apt-get", *options, "-q", "update"], work)
    return options


def _run(command: list[str | Path], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, cwd=cwd)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from error
    if done.returncode != 0:
        raise UnavailableError(f"{' '.join(map(str, command[:1]))}: {(done.stdout + done.stderr).strip()[-400:]}")
    return done.stdout.strip()


@dataclass
class Alertmanager:
    """A running Alertmanager on loopback, queried with amtool."""

    url: str
    amtool: Path

    def alerts(self, *flags: str) -> list[dict[str, Any]]:
        """Return the firing alerts from ``amtool alert query``; with ``--expired``, also those that have ended."""
        command = [self.amtool, f"--alertmanager.url={self.url}", "alert", "query", *flags, "-o", "json"]
        shown: list[dict[str, Any]] = json.loads(_run(command))
        return shown


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Alertmanager]:
    """Run an Alertmanager in a folder, for the length of a ``with`` block."""
    found = programs_or_skip()
    config = folder / "alertmanager.yml"
    config.write_text(CONFIG)
    port = free_port()
    command = [
        found["prometheus-alertmanager"], f"--config.file={config}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    its_share = found["prometheus-alertmanager"].parents[2]  # usr/share is there
    with child(command, folder / "alertmanager.log", ready, its_share):
        yield Alertmanager(url, found["amtool"])
