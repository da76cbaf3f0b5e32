"""The configuration: what is refused, by the name of its field, and that no secret shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from grantledger.base.toml import ConfigError, load_toml
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.webhooks.signing import parse_signing_keys
from support.alerting import alertmanager_toml, webhook_toml
from support.receiver import KEY, SECRET

HOOK = webhook_toml("hook", "https://hook.example/x", "/run/secrets/hook")
ONCALL = alertmanager_toml("oncall", "http://alertmanager:9093")


def written(folder: Path, text: str) -> Path:
    path = folder / "alerts.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    config = load_toml(written(tmp_path, f"first_start_hours = 24\n{HOOK}{ONCALL}"), AlertConfig)
    assert config.first_start_hours == 24
    assert config.channels["oncall"].delivery().repeat == 60.0
    assert config.channels["hook"].delivery().repeat is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: channels: is required"),
        ("[channels]", "channels: must not be empty"),
        (HOOK + "colour = 1", ":5: channels.hook.colour: unknown key"),
        (HOOK.replace("[channels.hook]", '[channels."Hook 1"]'), "'Hook 1' must be lower-case"),
        (HOOK.replace("https", "http"), "http is for loopback addresses only"),
        (
            HOOK.replace("https://", "https://me:hunter2@"),
            ":3: channels.hook.url: must not contain a user or a password",
        ),
        (HOOK.replace("https://", "ftp://"), "must be http"),
        (HOOK.replace("hook.example", "hook.example:port"), ":3: channels.hook.url: "),
        (HOOK.replace('{ file = "/run/secrets/hook" }', '"hunter2"'), ":4: channels.hook.secret: "),
        (HOOK.replace('{ file = "/run/secrets/hook" }', '{ env = "A", file = "/a" }'), "either env"),
        (HOOK.replace('kind = "webhook"', 'kind = "pager"'), "channels.hook.kind: is not one of alertmanager, webhook"),
        (HOOK + "timeout_seconds = 0", ":5: channels.hook.timeout_seconds: "),
        (HOOK + 'key_file = "/k"', "key_file needs cert_file"),
        (ONCALL + "ends_after_seconds = 100", "at least three times interval_seconds"),
        (ONCALL + 'user = "me"', "user and password go together"),
        (ONCALL + 'token = { env = "T" }', "needs https"),
        (ONCALL + 'ca_file = "/ca"', "need an https url"),
        (ONCALL + 'labels = { "a b" = "x" }', "'a b' must consist of letters"),
        (ONCALL + 'labels = { severity = "page" }', "'severity' is a label of every alert already"),
        (ONCALL + 'link = "javascript:x"', ":4: channels.oncall.link: "),
        ("a = [", "alerts.toml:1: "),
    ],
)
def test_errors_are_reported_without_secrets(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_toml(written(tmp_path, text), AlertConfig)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="alerts.toml: cannot be read: No such file"):
        load_toml(tmp_path / "alerts.toml", AlertConfig)


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    config = load_toml(written(tmp_path, webhook_toml("hook", "https://hook.example/x", str(secret))), AlertConfig)
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match="channels.hook.secret: others can access .*chmod 600"):
        build_channels(config)
    secret.chmod(0o600)
    assert [named.name for named in build_channels(config)] == ["hook"]
    secret.write_text("\n")
    with pytest.raises(ConfigError, match="is not a secret"):
        build_channels(config)
    secret.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        build_channels(config)


def test_a_secret_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HOOK.replace('{ file = "/run/secrets/hook" }', '{ env = "HOOK_SECRET" }')
    config = load_toml(written(tmp_path, text), AlertConfig)
    monkeypatch.delenv("HOOK_SECRET", raising=False)
    with pytest.raises(ConfigError, match="HOOK_SECRET is not set"):
        build_channels(config)
    monkeypatch.setenv("HOOK_SECRET", "hunter2")
    with pytest.raises(ConfigError, match="channels.hook.secret: must be whsec_") as caught:
        build_channels(config)
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    assert build_channels(config)


def test_tls_files_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", "a token")
    text = alertmanager_toml("oncall", "https://am.example", ca_file="/nowhere/ca.pem") + 'token = { env = "T" }'
    with pytest.raises(ConfigError, match="channels.oncall: the TLS files cannot be used"):
        build_channels(load_toml(written(tmp_path, text), AlertConfig))


def test_secrets_of_a_change_are_all_used() -> None:
    assert parse_signing_keys(f"{SECRET} {SECRET}", "x") == (KEY, KEY)
    for bad in ("whsec_", "whsec_AAAA", SECRET.removeprefix("whsec_"), "whsec_!", SECRET + "="):
        with pytest.raises(ConfigError):
            assert parse_signing_keys(bad, "x")
