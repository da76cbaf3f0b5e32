"""What `up` makes so that other machines reach the gateway and SQL."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from grantledger.console.address import EndpointAddress, EndpointCredential
from grantledger.producers.adapters import ADAPTERS
from grantledger.producers.gateway.config import load_gateway_config
from grantledger.producers.gateway.credentials import token_digest
from grantledger.runtime.publishing import publish, write_sql_credentials
from grantledger.runtime.settings import Settings, SettingsError


def test_nothing_is_published_unless_it_is_wanted(tmp_path: Path) -> None:
    assert publish(Settings(data_dir=tmp_path)) is None
    assert not list(tmp_path.iterdir())


def test_every_source_of_the_gateway_has_a_credential_for_curl(tmp_path: Path) -> None:
    published = publish(Settings(data_dir=tmp_path, publish_host="0.0.0.0"))
    assert published is not None
    config = load_gateway_config(published.settings["gateway_config"])
    assert config.listen == f"0.0.0.0:{published.gateway_port}" and config.tls_certificate is not None
    assert not config.without_credential()
    digests = {token.source: token.sha256 for token in config.token}
    assert digests.keys() == {one.name for one in config.source} == {"events", *ADAPTERS}
    for name, digest in digests.items():
        text = (tmp_path / "published" / f"{name}.curl").read_text()
        user, _, token = text.removeprefix('user = "').removesuffix('"\n').partition(":")
        assert (user, token_digest(token)) == (name, digest)
        assert token not in (tmp_path / "gateway.toml").read_text()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "published").iterdir()} == {0o600}


def test_sql_is_published_with_the_credentials_of_people(tmp_path: Path) -> None:
    published = publish(Settings(data_dir=tmp_path, publish_host="::"))
    assert published is not None
    assert published.settings["sql_listen"] == f"[::]:{published.sql_port}"
    Settings(data_dir=tmp_path, **published.settings)
    people = [EndpointCredential.generate(name) for name in ("analyst", "auditor", "reader")]
    write_sql_credentials(published, EndpointAddress("127.0.0.1", 1, *people))
    files = {path.name: path.read_text() for path in published.folder.glob("*.curl")}
    assert files["analyst.curl"] == f'user = "analyst:{people[0].password}"\n'
    assert files["auditor.curl"] == f'user = "auditor:{people[1].password}"\n'
    assert not any(people[2].password in text for text in files.values()), "our own readers are not published"


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, publish_host="127.0.0.1")
    publish(settings)
    path = tmp_path / "gateway.toml"
    path.write_text(path.read_text() + "# mine\n")
    publish(settings)
    assert path.read_text().endswith("# mine\n")
    own = settings.model_copy(update={"gateway_config": tmp_path / "own.toml", "clickhouse_url": "http://server"})
    published = publish(own)
    assert published is not None and published.settings == {}
    assert published.gateway_port is published.sql_port is None


def test_a_wrong_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="publish_host"):
        publish(Settings(data_dir=tmp_path, publish_host="1.2.3"))
