"""How alerts connect: certificates are checked, a handshake has its time, and an address is an address."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from grantledger.sinks.alerts.http import Answer, Poster, tls_context
from support.receiver import Receiver

from .test_enforce_webhook_tls import certificate, receiver

__all__ = ["certificate", "receiver"]  # fixtures, used by name


def posted(url: str, ca_file: Path | None = None, timeout_seconds: float = 30.0) -> Answer:
    context = tls_context(ca_file, None, None) if url.startswith("https") else None
    return Poster(url, timeout_seconds, context).post(b"{}", {}, time.time())


def test_a_certificate_of_a_known_authority_is_taken(receiver: Receiver, certificate: Path) -> None:
    assert posted(receiver.url, certificate).status == 204
    assert receiver.got[0][1]["host"] == receiver.url.split("/")[2]


def test_an_unknown_certificate_and_one_for_another_name_get_nothing(receiver: Receiver, certificate: Path) -> None:
    for url, authority in ((receiver.url, None), (receiver.url.replace("127.0.0.1", "localhost"), certificate)):
        answer = posted(url, authority)
        assert answer.status is None and "not trusted" in answer.text
    assert receiver.got == []


def test_a_handshake_that_drips_ends_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = threading.Event()

        def drip() -> None:
            with server.accept()[0] as connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # the head of a TLS record of 16 KiB
                # Ends by itself after a while: who waits for it to stop dripping is found out, not hung.
                for _ in range(300):
                    if end.wait(0.1):
                        break
                    connection.sendall(b".")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            began = time.monotonic()
            assert posted(f"https://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=1.5).status is None
            assert time.monotonic() - began < 15
        finally:
            end.set()
            thread.join()


def test_an_ipv6_address_is_reached_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        receiver = Receiver("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    real, asked = socket.create_connection, []

    def connect(address: tuple[str, int], *_rest: object, **_named: object) -> socket.socket:
        asked.append(address)
        return real(("::1", receiver.server.server_port))

    monkeypatch.setattr(socket, "create_connection", connect)
    try:
        assert posted("http://[::1]/hook").status == 204
        assert asked == [("::1", 80)] and receiver.got[0][1]["host"] == "[::1]"
    finally:
        receiver.stop()
