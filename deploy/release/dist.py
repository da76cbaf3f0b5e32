"""Builds a release in ``dist/``: sdist, wheel, locked requirements, SBOM, licences, and the checksums of all.

The same commit gives the same bytes, with the locked setuptools. It takes the files that git knows, as they are, and
builds the wheel from the sdist. Run it with ``make dist``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
licences = importlib.import_module("licences")
ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"


def epoch() -> str:
    """Return the time of the last commit in seconds, or SOURCE_DATE_EPOCH if that is set."""
    return os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct").strip()


def copy_source(to: Path) -> None:
    """Copy the files that git knows, with modes that do not depend on the clone."""
    for name in filter(None, _git("ls-files", "-z").split("\0")):
        if (ROOT / name).is_file():
            copy = to / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            copy.chmod(0o644)


def build(source: Path, what: str, out: Path, at: str) -> Path:
    """Build an sdist (``build_sdist``) or a wheel (``build_wheel``) with the setuptools that is installed."""
    command = [sys.executable, "-c", BUILD, what, str(out)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": at}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stdout}{done.stderr}")
    return out / done.stdout.strip().splitlines()[-1]


def repack(sdist: Path, at: str) -> None:
    """Write an sdist again without what differs from build to build: times, owners, order."""
    with tarfile.open(sdist) as archive:
        members = [(member, archive.extractfile(member)) for member in archive.getmembers() if member.isfile()]
        content = [(member.name, stream.read()) for member, stream in members if stream is not None]
    with (
        sdist.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=int(at)) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in sorted(content):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), int(at), 0o644
            archive.addfile(member, io.BytesIO(data))


def packages(out: Path, at: str) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from the sdist, into a folder."""
    with tempfile.TemporaryDirectory(prefix="grantledger-dist-") as folder:
        tree, unpacked = Path(folder) / "tree", Path(folder) / "unpacked"
        tree.mkdir()
        copy_source(tree)
        sdist = build(tree, "build_sdist", out, at)
        repack(sdist, at)
        with tarfile.open(sdist) as archive:
            archive.extractall(unpacked, filter="data")
        [inside] = unpacked.iterdir()
        return sdist, build(inside, "build_wheel", out, at)


def sbom(cyclonedx: Path, to: Path, at: str) -> None:
    """Write what grantledger needs, with all its extras, as CycloneDX JSON, and check it against the schema."""
    command = [
        str(cyclonedx), "environment", "--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "-o", "-",
        sys.executable,
    ]  # fmt: skip
    environment = {**os.environ, "SOURCE_DATE_EPOCH": at}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the SBOM failed:\n{done.stderr}")
    found = json.loads(done.stdout)
    wanted = set(licences.packages()) - {"grantledger"}
    found["components"] = [one for one in found["components"] if _normal(one["name"]) in wanted]
    kept = {one["bom-ref"] for one in found["components"]} | {found["metadata"]["component"]["bom-ref"]}
    found["dependencies"] = [
        {**one, **({"dependsOn": [ref for ref in one["dependsOn"] if ref in kept]} if "dependsOn" in one else {})}
        for one in found["dependencies"]
        if one["ref"] in kept
    ]
    if missing := wanted - {_normal(one["name"]) for one in found["components"]}:
        sys.exit(f"the SBOM lacks {', '.join(sorted(missing))}")
    to.write_text(json.dumps(found, indent=2) + "\n")


def main() -> None:
    """Build everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--cyclonedx", type=Path, required=True, help="the program cyclonedx-py")
    given, at = parser.parse_args(), epoch()
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _, wheel = packages(out, at)
    stem = "-".join(wheel.name.split("-")[:2])
    shutil.copyfile(ROOT / "deploy" / "requirements.lock", out / f"{stem}-requirements.txt")
    sbom(given.cyclonedx, out / f"{stem}.cdx.json", at)
    (out / f"{stem}-licences.md").write_text(licences.table())
    if unknown := [
        name for name, one in licences.packages().items() if not licences.is_allowed(name, licences.licence(name, one))
    ]:
        sys.exit(f"packages with a licence that nobody has allowed: {', '.join(unknown)}")
    files = sorted(path for path in out.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")


def _git(*arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    main()
