"""The passwords, the certificate and the folders that docker-compose.yml makes at its first start."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import re
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import yaml

from grantledger.producers.gateway.config import load_gateway_config
from grantledger.producers.gateway.credentials import token_digest
from grantledger.runtime.settings import load_settings

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
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: pwd.getpwuid(os.getuid()))
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(os, "fchown", lambda *_: None)
    monkeypatch.delenv("GRANTLEDGER_DEPLOYMENT", raising=False)
    for name in VOLUMES:
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
    assert all(re.fullmatch(r"[\w-]{40,}", one) for one in passwords.values()) and len({*passwords.values()}) == 6
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
        "readonly": "2", "max_execution_time": "30", "max_memory_usage": "1073741824",
    }  # fmt: skip
    [bounds] = profile.iterfind("constraints")
    assert {(one.tag, part.tag, part.text) for one in bounds for part in one} == {
        ("max_execution_time", "min", "1"), ("max_execution_time", "max", "300"), ("max_memory_usage", "const", None),
    }  # fmt: skip


def test_the_gateway_has_one_source_with_a_token(script: ModuleType, tmp_path: Path) -> None:
    script.make()
    config = load_gateway_config(tmp_path / "gateway" / "gateway.toml")
    assert config.without_credential() == [] and not config.is_loopback
    assert config.token[0].sha256 == token_digest((tmp_path / "secrets" / "gateway-first").read_text())
    assert {str(config.tls_certificate), str(config.tls_key)} == {"/data/tls.pem", "/data/tls.key"}


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "gateway"])
def test_clients_believe_the_certificate(name: str, script: ModuleType, tmp_path: Path) -> None:
    script.make()
    folder = tmp_path / "gateway"
    assert {path.name for path in folder.iterdir() if path.suffix in (".pem", ".key")} == {
        "ca.pem",
        "tls.pem",
        "tls.key",
    }
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()
    serving = threading.Thread(target=lambda: server.wrap_socket(there, server_side=True).close())
    serving.start()
    with client.wrap_socket(here, server_hostname=name) as connection:
        assert connection.version() == "TLSv1.3"
    serving.join()


def test_a_certificate_is_renewed_before_its_end(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.make()
    kept = contents(tmp_path / "gateway")
    file = tmp_path / "gateway" / "tls.pem"
    left = timedelta(days=script.CERTIFICATE_DAYS)
    real = script.expires
    monkeypatch.setattr(script, "expires", lambda path: real(path) - left + timedelta(days=script.RENEW_DAYS - 1))
    script.make()
    after = contents(tmp_path / "gateway")
    assert real(file) and {name for name in kept if kept[name] != after[name]} == {"ca.pem", "tls.pem", "tls.key"}


def test_what_people_need_is_shown(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.make()
    assert not any(one in capsys.readouterr().err for one in contents(tmp_path / "secrets") if one != "deployment")
    assert script.show() == 0
    shown = capsys.readouterr().out
    for name in ("grafana-admin", "gateway-first", "clickhouse-analyst", "clickhouse-auditor"):
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
