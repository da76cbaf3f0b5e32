"""The whole product in one container: `docker run grantledger up`, reached from outside over TLS."""

from __future__ import annotations

import io
import ssl
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from grantledger.runtime.publishing import GATEWAY_PORT, SQL_PORT
from support.containers import OURS, kill, our_container, run_in, state, stop, text_of, wait_healthy
from support.waiting import wait_for

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

pytestmark = pytest.mark.docker
EVENT = {"event_type": "session.started", "subject": "alice@example.com", "session_id": "s-1"}


class Outside:
    """A client on the host, with what `docker cp` gave it."""

    def __init__(self, container: DockerContainer, folder: Path) -> None:
        self._container = container
        stream, _ = container.get_wrapped_container().get_archive("/data/published")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            archive.extractall(folder, filter="data")
        self._folder = folder / "published"
        self._tls = ssl.create_default_context(cafile=self._folder / "ca.pem")

    def ask(self, user: str | None, port: int, path: str, **content: Any) -> httpx.Response:
        text = (self._folder / f"{user}.curl").read_text() if user else ""
        name, _, password = text.removeprefix('user = "').removesuffix('"\n').partition(":")
        url = f"https://localhost:{self._container.get_exposed_port(port)}{path}"
        with httpx.Client(verify=self._tls, auth=(name, password) if user else None, timeout=30) as client:
            return client.post(url, **content)

    def send(self, number: int) -> httpx.Response:
        event = {**EVENT, "source": {"native_id": str(number)}}
        return self.ask("events", GATEWAY_PORT, "/v1/events", json=event)

    def stored(self) -> int:
        sql = "SELECT count() FROM events WHERE source_system = 'events'"
        return int(self.ask("analyst", SQL_PORT, "/", content=sql).text)


@pytest.fixture(scope="module")
def up(engine: Any, image: Callable[[str], str]) -> Iterator[DockerContainer]:
    image(OURS)
    volume = engine.volumes.create()
    container = our_container("up", data=volume.name)
    container.ports = {str(port): ("127.0.0.1",) for port in (GATEWAY_PORT, SQL_PORT)}  # type: ignore[dict-item]
    try:
        with container:
            wait_healthy(container)
            wait_for(lambda: "Ready: " in text_of(container), "the stack is ready", pause=1.0)
            yield container
    finally:
        volume.remove(force=True)


@pytest.fixture(scope="module")
def outside(up: DockerContainer, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    return Outside(up, tmp_path_factory.mktemp("outside"))


def test_others_send_and_query_over_tls_with_the_credentials_it_made(outside: Outside) -> None:
    assert outside.send(1).json()["accepted"] == 1
    wait_for(lambda: outside.stored() == 1, "the event is stored", pause=1.0)
    assert outside.ask(None, GATEWAY_PORT, "/v1/events", json=EVENT).status_code == 401
    assert outside.ask(None, SQL_PORT, "/", content="SELECT 1").status_code == 401


def test_only_the_gateway_and_sql_listen_beyond_loopback(up: DockerContainer) -> None:
    """Kafka has no password. Its port is open inside the container only."""
    program = (
        "from pathlib import Path\n"
        "for name in ('tcp', 'tcp6'):\n"
        "    for line in Path(f'/proc/net/{name}').read_text().splitlines()[1:]:\n"
        "        local, state = line.split()[1], line.split()[3]\n"
        "        host, port = local.rsplit(':', 1)\n"
        "        if state == '0A' and not host.endswith('0100007F'):\n"
        "            print(int(port, 16))\n"
    )
    assert sorted(map(int, run_in(up, "python", "-c", program).split())) == [SQL_PORT, GATEWAY_PORT]


def test_nobody_is_root_and_the_sandbox_is_closed(up: DockerContainer) -> None:
    assert run_in(up, "id", "-u").strip() == "10001"
    assert "Read-only file system" in run_in(up, "sh", "-c", "touch /opt/x 2>&1; true")
    assert "has no sandbox" not in run_in(up, "grantledger", "status")


def test_a_killed_stack_continues_with_the_same_credentials(up: DockerContainer, outside: Outside) -> None:
    """Its process has the same id as before."""
    kill(up)
    up.get_wrapped_container().start()
    wait_healthy(up)

    def answers() -> bool:
        try:
            return outside.stored() >= 1
        except (httpx.TransportError, ValueError):
            return False

    wait_for(answers, "SQL answers", pause=1.0)
    assert outside.send(2).json()["accepted"] == 1
    wait_for(lambda: outside.stored() == 2, "the event is stored", pause=1.0)
    assert "SOUND" in run_in(up, "grantledger", "verify", codes=(0, 4))


def test_it_drains_on_sigterm(up: DockerContainer) -> None:
    assert stop(up) == 0, text_of(up)
    assert "All data is in the data folder" in text_of(up)
    assert not state(up)["OOMKilled"]
