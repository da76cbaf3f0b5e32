"""The port and password of the SQL endpoint stay the same across restarts, so that saved connections work."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from grantledger.console.address import EndpointAddress, EndpointCredential, read_address
from grantledger.console.query_spool import QuerySpool
from grantledger.runtime import sql_endpoint
from grantledger.runtime.loopback_ports import free_port
from grantledger.runtime.remembered_endpoint import REMEMBERED_FILE, recall_endpoint
from grantledger.runtime.settings import Settings, SettingsError
from grantledger.runtime.sql_endpoint import published_endpoint, query_spool, temporary_endpoint


class Endpoint:
    """Listens, and answers nothing."""

    def __init__(
        self,
        _path: Path,
        _spool: QuerySpool,
        _database: str,
        port: int,
        *,
        credentials: list[EndpointCredential],
        outside: None,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        given = {credential.user: credential for credential in credentials}
        users = [given.get(user) or EndpointCredential.generate(user) for user in ("analyst", "auditor", "reader")]
        self.address = EndpointAddress("127.0.0.1", self._listener.getsockname()[1], *users)

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(sql_endpoint, "SqlEndpoint", Endpoint)
    monkeypatch.setattr(sql_endpoint, "DEFAULT_PORT", free_port())
    return Settings(data_dir=tmp_path)


def address(settings: Settings) -> EndpointAddress:
    with published_endpoint(settings, recall_endpoint(settings.data_dir), query_spool(settings)) as found:
        assert read_address(settings.data_dir) == found
        return found


def lasting(address: EndpointAddress) -> tuple[int, EndpointCredential, EndpointCredential]:
    """Return the part that stays the same: our own readers get a new password at each start."""
    return address.port, address.analyst, address.auditor


def test_the_next_start_has_the_same_address(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    default = sql_endpoint.DEFAULT_PORT
    first = address(settings)
    assert first.port == default
    assert read_address(settings.data_dir) is None
    assert (settings.data_dir / REMEMBERED_FILE).stat().st_mode & 0o777 == 0o600
    assert lasting(address(settings)) == lasting(first)
    monkeypatch.setattr(sql_endpoint, "DEFAULT_PORT", free_port(taken=default))
    assert lasting(address(settings)) == lasting(first)


def test_a_taken_port_is_replaced_and_the_password_stays(settings: Settings) -> None:
    first = address(settings)
    with socket.create_server(("127.0.0.1", first.port)):
        second = address(settings)
        assert second.port != first.port
        assert second.analyst == first.analyst and second.auditor == first.auditor
        with pytest.raises(SettingsError, match="sql_port"):
            address(settings.model_copy(update={"sql_port": first.port}))
    assert lasting(address(settings)) == lasting(second)


def test_a_command_takes_neither_the_port_nor_the_password(settings: Settings) -> None:
    first = address(settings)
    with temporary_endpoint(settings) as found:
        assert found.port != first.port
        assert found.analyst != first.analyst and found.auditor != first.auditor
    assert lasting(address(settings)) == lasting(first)


@pytest.mark.parametrize("damage", ["mode", "content"])
def test_a_password_that_others_may_know_is_not_used_again(settings: Settings, damage: str) -> None:
    first = address(settings)
    path = settings.data_dir / REMEMBERED_FILE
    if damage == "mode":
        path.chmod(0o644)
    else:
        path.write_text("{")
    second = address(settings)
    assert second.analyst != first.analyst and second.auditor != first.auditor
