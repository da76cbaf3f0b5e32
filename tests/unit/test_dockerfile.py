"""The image against the code: what enters the build, its settings, its ports, its user and its programs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

from grantledger.runtime.jars import KAFKA_VERSION, LOCK_FILE, default_cache
from grantledger.runtime.publishing import GATEWAY_PORT, SQL_PORT
from grantledger.runtime.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ONLY_IN_THE_IMAGE = {"dumb-init"}


def instructions(name: str) -> list[str]:
    """Return the arguments of an instruction, wherever it is."""
    return [" ".join(rest.split()) for rest in re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)]


def environment() -> dict[str, str]:
    """Return the environment of the image."""
    return dict(re.findall(r"(\w+)=(\S+)", instructions("ENV")[-1]))


def pins(lock: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock file; one package may have several, for different platforms."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / lock).read_text("utf-8"), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_only_the_package_and_its_lock_enter_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    rooms = {name.split(".")[1] for name in PROJECT["tool"]["setuptools"]["packages"] if "." in name}
    files = {"LICENSE", "README.md", "__init__.py", "py.typed", "pyproject.toml", "deploy/requirements.lock"}
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == rooms | files
    assert all((ROOT / rule[1:]).exists() for rule in rules if rule.startswith("!"))


def test_the_lock_of_the_image_has_the_tested_versions() -> None:
    image, tested = pins("deploy/requirements.lock"), pins("requirements.lock")
    assert image.keys() - tested.keys() == ONLY_IN_THE_IMAGE
    assert all(versions <= tested[name] for name, versions in image.items() if name in tested)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {*PROJECT["project"]["dependencies"], *extras["image"]}
    wanted |= {one for extra in ("embedded", "enforce", "gateway", "redaction", "s3") for one in extras[extra]}
    direct = {re.split(r"[>=\[;]", one)[0].replace(".", "-") for one in wanted} - {"grantledger"}
    assert direct <= image.keys()
    assert not image.keys() & {"pytest", "mypy", "ruff", "moto", "hypothesis"}


def test_settings_of_the_image_exist(tmp_path: Path, monkeypatch) -> None:
    given = {name: value for name, value in environment().items() if name.startswith("GRANTLEDGER_")}
    assert given
    for name, value in given.items():
        assert name.removeprefix("GRANTLEDGER_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    load_settings()
    assert instructions("VOLUME") == [given["GRANTLEDGER_DATA_DIR"]] == instructions("WORKDIR")[-1:]


def test_ports() -> None:
    metrics = environment()["GRANTLEDGER_METRICS_PORT"]
    assert instructions("EXPOSE") == [f"{GATEWAY_PORT} {SQL_PORT} {metrics}"]


def test_the_build_fetches_the_jars_to_where_up_looks_for_them(tmp_path: Path, monkeypatch) -> None:
    folder = environment()["XDG_CACHE_HOME"]
    assert f"XDG_CACHE_HOME={folder} " in DOCKERFILE
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    assert default_cache() == Path("/opt/grantledger/cache/grantledger")
    assert KAFKA_VERSION in LOCK_FILE.read_text("utf-8")


def test_what_the_build_copies_is_enough_to_fetch_the_jars(tmp_path: Path) -> None:
    copied = [line.split() for line in instructions("COPY") if line.split()[-1].startswith("kafka-jars/")]
    for *sources, target in copied:
        for source in sources:
            name = target if (ROOT / source).is_dir() else f"{target}{Path(source).name}"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).symlink_to(ROOT / source)
    program = "from grantledger.runtime import jars; print(len(jars.read_lock()), jars.default_cache())"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path / "kafka-jars"), "XDG_CACHE_HOME": "/c"},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.endswith("/c/grantledger\n"), done.stderr


def test_nobody_is_root_and_the_programs_exist() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instructions("USER")[-1])
    [check] = instructions("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-m"] and find_spec(command[2])
    [entry] = instructions("ENTRYPOINT")
    assert json.loads(entry) == ["dumb-init", "--single-child", "--", *PROJECT["project"]["scripts"]]
    assert [json.loads(one) for one in instructions("CMD")] == [["--help"]]


def test_the_base_has_a_python_that_is_supported() -> None:
    assert instructions("FROM") == ["${BASE} AS build", "${BASE}"]
    version = re.search(r"^ARG BASE=python:([\d.]+)-slim$", DOCKERFILE, re.MULTILINE)
    assert version and f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]
