"""Settings: where they come from, which of two counts, what is refused, and that secrets do not show."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from grantledger.runtime.settings import Settings, SettingsError, load_settings
from grantledger.runtime.stack_file import StackFileError, read_stack, write_stack


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GRANTLEDGER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRANTLEDGER_CONFIG", "")  # so that what a test sets is taken back


def toml(folder: Path, text: str) -> Path:
    path = folder / "grantledger.toml"
    path.write_text(text, "utf-8")
    return path


def stack(folder: Path, **found: object) -> None:
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "stack.json").write_text(json.dumps({"pid": os.getpid()} | found))


def test_all_of_them_have_a_default(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings.data_dir == tmp_path
    assert settings.private_key_path == tmp_path / "keys" / "log.pem"
    assert settings.public_key_path == tmp_path / "keys" / "log.pub"
    assert settings.store_path == tmp_path / "clickhouse"
    assert settings.anchor_path == tmp_path / "anchors.jsonl"
    assert settings.seal_linger_seconds == 1.0


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("GRANTLEDGER_KAFKA_OPTIONS", '{"security.protocol": "SASL_SSL", "retries": 3}')
    monkeypatch.setenv("GRANTLEDGER_KAFKA_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("GRANTLEDGER_SEAL_LINGER_SECONDS", "0.25")
    settings = load_settings()
    assert settings.seal_linger_seconds == 0.25
    assert settings.kafka_client_options() == {
        "bootstrap.servers": "kafka:9092",
        "security.protocol": "SASL_SSL",
        "retries": 3,
        "sasl.password": "hunter2",
    }


def test_from_a_toml_file(tmp_path: Path) -> None:
    path = toml(tmp_path, 'deployment = "prod.example.com"\n[kafka_options]\n"security.protocol" = "SSL"\n')
    settings = load_settings(tmp_path, path)
    assert settings.require_deployment() == "prod.example.com"
    assert settings.kafka_options == {"security.protocol": "SSL"}


def test_the_command_line_comes_before_the_environment_before_the_file_before_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(tmp_path, deployment="from-stack", kafka_bootstrap_servers="from-stack:1")
    (tmp_path / "deployment").write_text("from-folder\n")
    assert load_settings(tmp_path).kafka_bootstrap_servers == "from-stack:1"
    path = toml(tmp_path, 'deployment = "from-file"\nkafka_bootstrap_servers = "from-file:1"\nsql_port = 2\n')
    assert load_settings(tmp_path, path).kafka_bootstrap_servers == "from-file:1"
    monkeypatch.setenv("GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS", "from-env:1")
    settings = load_settings(tmp_path, path)
    assert (settings.deployment, settings.kafka_bootstrap_servers, settings.sql_port) == ("from-file", "from-env:1", 2)
    monkeypatch.setenv("GRANTLEDGER_DATA_DIR", "/from/env")
    assert load_settings(tmp_path, path).data_dir == tmp_path


def test_the_deployment_of_a_data_folder(tmp_path: Path) -> None:
    (tmp_path / "deployment").write_text("local-1234\n")
    assert load_settings(tmp_path).deployment == "local-1234"


def test_a_stack_that_no_longer_runs_contributes_no_settings(tmp_path: Path) -> None:
    stack(tmp_path, kafka_bootstrap_servers="gone:1", pid=2**22 + 1)
    assert read_stack(tmp_path) == {}


def test_the_stack_of_a_killed_container_does_not_run_because_its_process_id_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_stack(tmp_path, {"kafka_bootstrap_servers": "here:1"})
    assert load_settings(tmp_path).kafka_bootstrap_servers == "here:1"
    stack(tmp_path, kafka_bootstrap_servers="gone:1", began=1)
    assert load_settings(tmp_path).kafka_bootstrap_servers == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', '{"pid": 99999999999999999999}', "\ud800"])
def test_a_broken_stack_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StackFileError, match=r"stack\.json cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPLOYMENT", "Prod"),
        ("DEPLOYMENT", "a" * 151),
        ("ACTIVITY_PARTITIONS", "0"),
        ("ACTIVITY_PARTITIONS", "many"),
        ("SEAL_LINGER_SECONDS", "-1"),
        ("ANCHOR_TARGETS", '["moon"]'),
        ("SEALER_INSTANCE", ""),
        ("LOG_LEVEL", "loud"),
        ("CLICKHOUSE_DATABASE", "a; DROP TABLE"),
        ("SQL_PORT", "70000"),
        ("KAFKA_OPTIONS", "not json"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"GRANTLEDGER_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value).upper()


def test_a_bad_json_option_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, problem in (("{bad", "is not JSON: Expecting property name"), ("[1]", "must be a JSON object")):
        monkeypatch.setenv("GRANTLEDGER_KAFKA_OPTIONS", value)
        with pytest.raises(SettingsError) as raised:
            load_settings()
        assert str(raised.value).startswith(f"GRANTLEDGER_KAFKA_OPTIONS: {problem}")
        assert "\n" not in str(raised.value)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"grantledger\.toml:1: kafka_bootstrap_server: unknown key; did you mean kafka_bootstrap_servers",
    ):
        load_settings(tmp_path, toml(tmp_path, 'kafka_bootstrap_server = "typo"\n'))


def test_every_error_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTLEDGER_LOG_LEVEL", "loud")
    monkeypatch.setenv("GRANTLEDGER_KAFKA_OPTIONS", "{")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, toml(tmp_path, "one = 1\nsql_port = -1\n"))
    lines = str(caught.value).splitlines()
    assert [line.partition("GRANTLEDGER_")[2].partition(":")[0] for line in lines[:2]] == ["KAFKA_OPTIONS", "LOG_LEVEL"]
    assert [line.split("grantledger.toml:")[1].split(": ")[:2] for line in lines[2:]] == [
        ["1", "one"],
        ["2", "sql_port"],
    ]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings(tmp_path, tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match=r"grantledger\.toml:1:7: "):
        load_settings(tmp_path, toml(tmp_path, "not = toml = at all"))


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, tmp_path)
    path = toml(tmp_path, "")
    path.chmod(0o666)
    with pytest.raises(SettingsError, match=r"anybody can write this file; run: chmod o-w"):
        load_settings(tmp_path, path)


def test_a_password_among_the_options_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTLEDGER_KAFKA_OPTIONS", '{"sasl.password": "hunter2"}')
    with pytest.raises(SettingsError, match=r"KAFKA_OPTIONS.*kafka_sasl_password") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_no_secret_shows_in_a_message(tmp_path: Path) -> None:
    path = toml(tmp_path, 'clickhouse_password = "hunter2"\nkey_passphrase = "hunter2"\nsql_port = "hunter3"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, path)
    assert "hunter" not in str(caught.value)


def test_no_secret_shows_where_settings_are_printed() -> None:
    settings = Settings(
        kafka_sasl_password="hunter2",
        schema_registry_password="hunter2",
        clickhouse_password="hunter2",
        key_passphrase="hunter2",
        kafka_options={"ssl.key.password": "hunter2", "sasl.oauthbearer.client.secret": "hunter2", "acks": "all"},
        clickhouse_options={"access_token": "hunter2", "verify": False},
        clickhouse_url="https://reader:hunter2@clickhouse:8443",
        schema_registry_url="https://reader:hunter2@registry",
    )
    shown = {name: settings.shown(name) for name in Settings.model_fields}
    assert "hunter2" not in json.dumps(shown)
    assert shown["kafka_sasl_password"] == shown["key_passphrase"] == "(secret)"
    assert json.loads(shown["kafka_options"])["acks"] == "all"
    assert shown["clickhouse_url"] == "https://(secret)@clickhouse:8443"
    assert shown["key_file"] == shown["schema_registry_user"] == ""
    assert shown["anchor_targets"] == "file"
    assert Settings().shown("kafka_sasl_password") == ""


def test_missing_settings_are_reported_with_advice(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    with pytest.raises(SettingsError, match="set GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS"):
        settings.kafka_client_options()
    with pytest.raises(SettingsError, match="set GRANTLEDGER_DEPLOYMENT"):
        settings.require_deployment()
