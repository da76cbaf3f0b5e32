"""The passwords, the certificate and the folders that docker-compose.yml makes at its first start."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import yaml
from cryptography import x509

from grantledger.producers.adapters import ADAPTERS
from grantledger.producers.gateway.config import load_gateway_config
from grantledger.runtime.settings import load_settings
from grantledger.sinks.state_statements import LOOKUPS

ROOT = Path(__file__).resolve().parents[2]
SERVICE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["secrets"]
VOLUMES = {one.split(":")[1].removeprefix("/volumes/") for one in SERVICE["volumes"] if "/volumes/" in one}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, over other folders, and as a user who need not be root."""
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "deploy" / "compose" / "make_secrets.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VOLUMES", tmp_path)
    monkeypatch.setattr(module, "GATEWAY", tmp_path / "gateway")
    monkeypatch.setenv("GRANTLEDGER_PUBLISH_NAMES", '["further.example"]')
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: pwd.getpwuid(os.getuid()))
    monkeypatch.setattr(os, "chown", lambda *_, **__: None)
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    monkeypatch.delenv("GRANTLEDGER_DEPLOYMENT", raising=False)
    for name in {*VOLUMES, "gateway"}:
        (tmp_path / name).mkdir()
    yield module
    (tmp_path / "grafana-secrets").chmod(0o700)  # so that the folder can be removed


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_folder_gets_what_it_needs(script: ModuleType, tmp_path: Path) -> None:
    assert script.make() == 0
    passwords = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    name = passwords.pop("deployment")
    assert re.fullmatch(r"compose-[0-9a-f]{8}", name)
    assert all(re.fullmatch(r"[\w-]{40,}", one) for one in passwords.values()) and len({*passwords.values()}) == 5
    for process, user in script.USER_OF.items():
        folder = tmp_path / process
        settings = load_settings(folder, folder / "settings.toml")
        assert settings.deployment == name and settings.clickhouse_user == user
        assert settings.clickhouse_password.get_secret_value() == passwords[f"clickhouse-{user}"]
    assert (tmp_path / "grafana-secrets" / "admin-password").read_text() == passwords["grafana-admin"]
    assert (tmp_path / "grafana-secrets" / "clickhouse-password").read_text() == passwords["clickhouse-analyst"]
    known = {*script.PROCESSES, "ledger", "policy", "anchors", "verification"}
    assert known | {"secrets", "grafana-secrets", "clickhouse-users"} == VOLUMES


def test_nobody_else_can_read_a_secret(script: ModuleType, tmp_path: Path) -> None:
    script.make()
    passwords = [path.read_bytes() for path in (tmp_path / "secrets").iterdir() if path.name != "deployment"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            secret = path.suffix == ".key" or any(one in path.read_bytes() for one in passwords)
            assert not secret or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "verification").stat().st_mode) == 0o755  # node_exporter reads it
    assert stat.S_IMODE((tmp_path / "operator").stat().st_mode) == 0o700


def test_the_next_start_changes_nothing(script: ModuleType, tmp_path: Path) -> None:
    script.make()
    kept = contents(tmp_path)
    assert script.make() == 0
    assert contents(tmp_path) == kept


def test_clickhouse_gets_hashes_only_and_no_default_user(script: ModuleType, tmp_path: Path) -> None:
    script.make()
    file = tmp_path / "clickhouse-users" / "grantledger.xml"
    users = ElementTree.parse(file).find("users")
    assert users is not None
    assert next((one.tag, one.get("remove")) for one in users) == ("default", "remove")
    for user in script.CLICKHOUSE_USERS:
        password = (tmp_path / "secrets" / f"clickhouse-{user}").read_bytes()
        assert users.findtext(f"{user}/password_sha256_hex") == hashlib.sha256(password).hexdigest()
        assert password not in file.read_bytes()
    # Each has exactly the rights of its role, and only the administrator those that no role has.
    for user, role in script.CLICKHOUSE_USERS.items():
        grants = {str(one.text) for one in users.iterfind(f"{user}/grants/query")}
        assert grants == {f"GRANT {right}" for right in (role.rights if role is not None else ())}
        assert (users.findtext(f"{user}/access_management") == "1") == (role is None) == (user == "admin")


def test_clickhouse_limits_analysts_as_their_role_does(script: ModuleType, tmp_path: Path) -> None:
    script.make()
    [profile] = ElementTree.parse(tmp_path / "clickhouse-users" / "grantledger.xml").iterfind("profiles/analyst")
    assert {one.tag: one.text for one in profile if one.tag != "constraints"} == {
        "readonly": "2", "max_execution_time": "30", "max_memory_usage": "1073741824", **LOOKUPS,
    }  # fmt: skip
    [bounds] = profile.iterfind("constraints")
    assert {(one.tag, part.tag, part.text) for one in bounds for part in one} == {
        ("max_execution_time", "min", "1"), ("max_execution_time", "max", "300"), ("max_memory_usage", "const", None),
    }  # fmt: skip


def test_the_gateway_has_a_certificate_and_a_source_for_each_tool(script: ModuleType, tmp_path: Path) -> None:
    script.make()
    config = load_gateway_config(tmp_path / "gateway" / "gateway.toml")
    assert config.listen == "0.0.0.0:8480" and config.without_credential() == []
    assert {one.tool for one in config.source if one.tool} == set(ADAPTERS)
    assert config.tls_certificate is not None
    names = subject_names(config.tls_certificate)
    assert {"localhost", "127.0.0.1", "further.example"} <= names
    assert SERVICE["hostname"] == "gateway"  # so that these names are the same at each start
    assert (tmp_path / "gateway" / "published" / "events.curl").exists()


def test_root_does_not_follow_links_of_the_gateway(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "gateway" / "published").symlink_to(tmp_path / "seal")
    with pytest.raises(SystemExit, match="symbolic link"):
        script.make()
    assert not (tmp_path / "seal" / "ca.pem").exists()


def subject_names(file: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one.value) for one in found}


def test_what_people_need_is_shown(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.make()
    assert not any(one in capsys.readouterr().err for one in contents(tmp_path / "secrets") if one != "deployment")
    assert script.show() == 0
    shown = capsys.readouterr().out
    for name in ("deployment", "grafana-admin", "clickhouse-analyst", "clickhouse-auditor"):
        assert (tmp_path / "secrets" / name).read_text() in shown
    for name in ("clickhouse-writer", "clickhouse-admin"):
        assert (tmp_path / "secrets" / name).read_text() not in shown


def test_the_name_of_a_ledger_cannot_change(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRANTLEDGER_DEPLOYMENT", "prod.example.com")
    assert script.make() == 0
    monkeypatch.setenv("GRANTLEDGER_DEPLOYMENT", "other.example.com")
    capsys.readouterr()
    assert script.make() == 2
    assert "the ledger in these volumes is that of prod.example.com" in capsys.readouterr().err
    monkeypatch.setenv("GRANTLEDGER_DEPLOYMENT", "No_Name")
    assert script.make() == 2
    assert "has other characters" in capsys.readouterr().err
