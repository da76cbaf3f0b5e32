"""Rules of the sandbox, without entering it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grantledger.runtime import landlock, status, store_sandbox
from grantledger.runtime.landlock import FileAccess, PortAccess
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_sandbox import file_rules, kept_environment, rules_without, without_key_files
from grantledger.runtime.store_start import _in_memory, _plain


@pytest.mark.parametrize(
    ("version", "newest"),
    [(1, FileAccess.MAKE_SYM), (2, FileAccess.REFER), (3, FileAccess.TRUNCATE), (4, FileAccess.TRUNCATE)]
    + [(version, FileAccess.IOCTL_DEV) for version in (5, 6, 7, 9)],
)
def test_a_kernel_is_asked_only_for_rights_that_it_knows(version: int, newest: FileAccess) -> None:
    handled = landlock.handled_files(version)
    assert handled == 2 * newest - 1


def test_the_version_is_found_on_any_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= landlock.abi() < 100
    monkeypatch.setattr(landlock.sys, "platform", "darwin")
    assert landlock.abi() == 0
    with pytest.raises(OSError, match="no Landlock"):
        landlock.restrict([], {})


def test_a_folder_above_a_secret_is_opened_around_it(tmp_path: Path) -> None:
    for name in ("lib/a", "app/code", "app/data/keys", "app/data/clickhouse"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "app" / "settings.toml").touch()
    (tmp_path / "app" / "module.py").touch()
    (tmp_path / "app" / "link").symlink_to(tmp_path / "app" / "data")
    secret = [tmp_path / "app" / "data", tmp_path / "app" / "settings.toml"]
    rules = dict(rules_without([tmp_path / "lib", tmp_path / "app", tmp_path / "app" / "data", Path("/")], secret))
    assert rules == {
        tmp_path / "lib": FileAccess.EXECUTE | landlock.READ,
        tmp_path / "app": FileAccess.READ_DIR,
        tmp_path / "app" / "code": FileAccess.EXECUTE | landlock.READ,
        tmp_path / "app" / "module.py": FileAccess.EXECUTE | landlock.READ,
    }


def test_only_the_store_can_be_written(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    writing = FileAccess.WRITE_FILE | FileAccess.MAKE_REG | FileAccess.REMOVE_FILE
    writable = {path for path, access in file_rules(settings) if access & writing}
    names = ("clickhouse", "clickhouse.tmp", "clickhouse.queries", "clickhouse.lock", "run")
    assert writable == {*(tmp_path / name for name in names), Path("/dev/null")}
    readable = {path for path, access in file_rules(settings) if access & FileAccess.READ_FILE}
    for secret in (tmp_path, tmp_path / "run", tmp_path / "keys", Path("/proc"), Path("/etc"), Path("/")):
        assert not any(path == secret for path in readable)
    assert not any(path.name == "environ" for path in readable)


def test_the_environment_keeps_no_setting_and_no_secret() -> None:
    given = {"PATH": "/bin", "LC_ALL": "C", "PYTHONPATH": "/x", "TZ": "UTC"}
    secret = {"GRANTLEDGER_KEY_PASSPHRASE": "x", "AWS_SECRET_ACCESS_KEY": "x", "PASSWORD": "x", "HOMEPASS": "x"}
    assert kept_environment(given | secret) == given


def test_key_files_of_kafka_are_read_before_the_sandbox(tmp_path: Path) -> None:
    key = tmp_path / "client.key"
    key.write_text("PEM")
    options = {"ssl.key.location": str(key), "ssl.ca.location": "/etc/ssl/ca.pem", "ssl.key.password": "x"}
    assert without_key_files(options) == {
        "ssl.key.pem": "PEM",
        "ssl.ca.location": "/etc/ssl/ca.pem",
        "ssl.key.password": "x",
    }
    with pytest.raises(FileNotFoundError):
        without_key_files({"ssl.key.location": str(tmp_path / "none")})


def test_the_store_receives_only_the_secrets_that_it_needs(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, key_passphrase="not-this", clickhouse_password="nor-this", kafka_sasl_password="but-this"
    )
    with open(_in_memory(settings, {"public": "k"}, None, 7), encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        content = file.read()
    assert "not-this" not in content and "nor-this" not in content
    assert json.loads(content)["settings"]["kafka_sasl_password"] == "but-this"
    assert Settings(**_plain(settings)).kafka_sasl_password.get_secret_value() == "but-this"


def test_ports_are_those_of_the_brokers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        def __init__(self, *_: object) -> None:
            self.admin = self

        def list_topics(self, timeout: float) -> None:
            raise store_sandbox.KafkaException("no broker answers")

    monkeypatch.setattr(store_sandbox, "Cluster", Nobody)
    settings = Settings(
        data_dir=tmp_path,
        kafka_bootstrap_servers="a:9093,b:9094,c",
        kafka_options={"sasl.oauthbearer.token.endpoint.url": "https://login.example/token"},
        sql_port=8123,
    )
    rules = store_sandbox.port_rules(settings, 4000)
    assert {port for port, access in rules.items() if access & PortAccess.CONNECT} == {9092, 9093, 9094, 443}
    assert {port for port, access in rules.items() if access & PortAccess.BIND} == {0, 4000, 8123}


def test_a_store_without_a_sandbox_is_a_warning_and_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "read_samples", lambda *_: {("grantledger_store_sandbox", ""): 0.0})
    shown = status.read_status(Settings(data_dir=tmp_path), None, [status.ProcessStatus("store", 1)], None)
    assert shown.warnings == (status.NO_SANDBOX,)
    assert shown.troubles == ()
    assert shown.as_json()["warnings"] == (status.NO_SANDBOX,)
    monkeypatch.setattr(status, "read_samples", lambda *_: {("grantledger_store_sandbox", ""): 7.0})
    shown = status.read_status(Settings(data_dir=tmp_path), None, [status.ProcessStatus("store", 1)], None)
    assert shown.warnings == ()
