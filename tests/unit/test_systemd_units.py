"""The units in deploy/systemd: one per process, each with its own user and only the keys that it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from typer.main import get_command

from grantledger.cli.app import app
from grantledger.runtime.settings import Settings
from grantledger.schemas.own_sources import OWN_SOURCES, READER

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNITS = {path.stem.removeprefix("grantledger-"): path for path in sorted(FOLDER.glob("*.service"))}
LOG_KEY = {"seal", "anchor"}
"""The processes that sign for the logs."""
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")


def options(name: str) -> dict[str, list[str]]:
    """Return the values of each directive of a unit."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNITS[name].read_text("utf-8").replace("\\\n", " ").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def credentials(name: str) -> dict[str, str]:
    return dict(one.split(":", 1) for one in options(name)["LoadCredential"])  # type: ignore[misc]


def environment(name: str) -> dict[str, str]:
    return dict(one.split("=", 1) for one in options(name)["Environment"])  # type: ignore[misc]


def test_every_process_has_a_unit() -> None:
    processes = set(get_command(app).commands["run"].commands)  # type: ignore[attr-defined]
    assert set(UNITS) == processes | {"follow"}
    assert all(f"grantledger-{name}.service" in PAGE for name in processes)


@pytest.mark.parametrize("name", UNITS)
def test_each_has_a_user_a_folder_and_settings_of_its_own(name: str) -> None:
    unit = options(name)
    assert unit["User"] == unit["StateDirectory"] == [f"grantledger-{name}"]
    assert f'u grantledger-{name} - "' in (FOLDER / "grantledger.sysusers.conf").read_text("utf-8")
    assert credentials(name)["settings.toml"] == f"/etc/grantledger/settings/{name}.toml"
    assert "--config %d/settings.toml" in unit["ExecStart"][0]
    used = " ".join((*unit["ExecStart"], *unit["Environment"]))
    folders = {"%d" for value in environment(name).values() if value == "%d"}
    assert all(f"%d/{one}" in used or (folders and one.endswith(".pem")) for one in credentials(name))


@pytest.mark.parametrize("name", UNITS)
def test_the_environment_has_settings_that_exist_and_no_secret(name: str) -> None:
    for key, value in environment(name).items():
        assert key.removeprefix("GRANTLEDGER_").lower() in Settings.model_fields
        assert value.startswith(("%d", "/var/lib/", "/etc/grantledger/")), "paths only"


@pytest.mark.parametrize("name", UNITS)
def test_each_gets_only_the_keys_that_it_needs(name: str) -> None:
    keys = {one for one in credentials(name) if one.endswith(".pem")}
    sources = keys - {"log.pem"}
    assert ("log.pem" in keys) == (name in LOG_KEY)
    if name in ("follow", "gateway"):
        assert not keys
        return
    [own] = sources - {f"{READER}.pem"}
    assert own.removesuffix(".pem") in OWN_SOURCES and own.startswith(f"grantledger-{name}")
    assert sources == {own, f"{READER}.pem"}


def test_a_restart_is_left_to_a_person_where_it_changes_nothing() -> None:
    common = (FOLDER / "grantledger-.service.d" / "common.conf").read_text("utf-8")
    assert "RestartPreventExitStatus=2 3\n" in common


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """And its own rating of each is not worse than 2.5 of 10, from "safe" to "exposed"."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    shutil.copytree(FOLDER / "grantledger-.service.d", tmp_path / "grantledger-.service.d")
    for path in UNITS.values():
        text = path.read_text("utf-8").replace("/opt/grantledger/bin/grantledger", "/bin/true")
        (tmp_path / path.name).write_text(text)
    units = [str(tmp_path / path.name) for path in UNITS.values()]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rating = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", *units]
    done = subprocess.run(rating, capture_output=True, text=True, check=False)
    levels = re.findall(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert len(levels) == len(units) and done.returncode == 0, done.stdout + done.stderr
