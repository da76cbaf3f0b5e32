"""The gateway's syslog listeners: framing, sources, order, and what happens while nothing can be stored."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from grantledger.producers.gateway import syslog
from grantledger.producers.gateway.config import GatewayConfig, GatewaySyslog
from grantledger.producers.gateway.syslog import SyslogListener
from grantledger.producers.gateway.syslog_frames import FrameError, SyslogFrames
from support.gateway import SOURCES, GatewayInProcess


def session(number: int) -> bytes:
    record = {"event": "session.start", "code": "T2000I", "uid": f"u{number}", "sid": f"s{number}", "user": "alice"}
    return json.dumps({**record, "time": "2024-05-01T10:00:00Z"}).encode()


def rfc_5424(number: int) -> bytes:
    return b"<134>1 2026-11-28T05:00:00.1Z host teleport 12 - - " + session(number)


def rfc_3164(number: int) -> bytes:
    return b"<134>Nov 28 05:00:00 host teleport[12]: " + session(number)


def counted(message: bytes) -> bytes:
    return str(len(message)).encode() + b" " + message


def split(data: bytes, *, size: int, limit: int = 10_000) -> list[bytes]:
    frames = SyslogFrames(limit)
    found = [one for at in range(0, len(data), size) for one in frames.feed(data[at : at + size])]
    return found + frames.end()


MESSAGES = [rfc_5424(1), rfc_3164(2), session(3), b"2026-11-28T05:00:00Z host teleport: " + session(4)]


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_streams_are_split_by_line_ends_and_by_counts(size: int) -> None:
    lines = b"\n".join(MESSAGES) + b"\n"
    assert split(lines, size=size) == MESSAGES
    first_two = MESSAGES[:2]
    assert split(b"".join(map(counted, first_two)), size=size) == first_two
    mixed = counted(MESSAGES[0]) + MESSAGES[1] + b"\n" + counted(MESSAGES[0]) + MESSAGES[3]
    assert split(mixed, size=size) == [MESSAGES[0], MESSAGES[1], MESSAGES[0], MESSAGES[3]]


def test_a_counted_message_may_contain_line_ends() -> None:
    message = b"<13>1 - - - - - - a\nb"
    assert split(counted(message), size=5) == [message]


@given(st.lists(st.binary(max_size=40)), st.integers(1, 9))
def test_any_bytes_are_split_or_refused(pieces: list[bytes], size: int) -> None:
    try:
        found = split(b"".join(pieces), size=size, limit=50)
    except FrameError:
        return
    assert all(one.strip() for one in found)


@pytest.mark.parametrize("data", [b"x" * 51, b"99999 <13>1", b"51 <" + b"x" * 60])
def test_a_message_that_is_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match="longer than 50 bytes"):
        split(data, size=8, limit=50)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayInProcess]:
    with GatewayInProcess(tmp_path) as running:
        yield running


def run(
    gateway: GatewayInProcess, protocol: str, work: Callable[[tuple[str, int]], Awaitable[None]], **options: Any
) -> None:
    """Run a listener while ``work`` sends to its address."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    listening = socket.socket(socket.AF_INET, kind)
    listening.bind(("127.0.0.1", 0))
    if protocol != "udp":
        listening.listen()

    async def serve() -> None:
        config = GatewaySyslog.model_validate({"protocol": protocol, "listen": "127.0.0.1:0", "source": "teleport"})
        listener = SyslogListener(config, listening, gateway.gateway, source_of=lambda _certificate: None, **options)
        await listener.start()
        await work(listening.getsockname())
        await listener.stop()

    gateway.run(serve())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def sessions(gateway: GatewayInProcess) -> list[str]:
    return [event["session_id"] for event in gateway.kafka.events]


def test_messages_over_tcp_are_stored_in_order(gateway: GatewayInProcess) -> None:
    async def work(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"".join(rfc_3164(number) + b"\n" for number in range(300)) + counted(rfc_5424(300)))
        await writer.drain()
        await until(lambda: len(gateway.kafka.records) == 301)
        writer.close()

    run(gateway, "tcp", work)
    assert sessions(gateway) == [f"s{number}" for number in range(301)]


def test_messages_over_udp_are_stored(gateway: GatewayInProcess) -> None:
    async def work(address: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(20):
                sender.sendto(rfc_5424(number), address)
        await until(lambda: len(gateway.kafka.records) == 20)

    run(gateway, "udp", work)
    assert sorted(sessions(gateway)) == sorted(f"s{number}" for number in range(20))


def test_while_nothing_can_be_stored_tcp_waits(gateway: GatewayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "AGAIN_SECONDS", 0.01)
    gateway.kafka.refuses = "Broker: Topic authorization failed"

    async def work(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(rfc_5424(1) + b"\n")
        await writer.drain()
        await until(lambda: gateway.kafka.refusals > 2)
        gateway.kafka.refuses = ""
        await until(lambda: len(gateway.kafka.records) == 1)
        writer.close()

    run(gateway, "tcp", work)
    assert sessions(gateway) == ["s1"]


def test_what_is_not_understood_is_counted_and_the_rest_is_stored(gateway: GatewayInProcess) -> None:
    labels = {"source": "teleport", "result": "refused"}
    before = REGISTRY.get_sample_value("grantledger_gateway_records_total", labels) or 0

    async def work(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"<13>Nov 28 05:00:00 host sshd[1]: Accepted publickey for alice\n" + rfc_3164(1) + b"\n")
        await writer.drain()
        await until(lambda: len(gateway.kafka.records) == 1)
        writer.close()

    run(gateway, "tcp", work)
    assert REGISTRY.get_sample_value("grantledger_gateway_records_total", labels) == before + 1


@pytest.mark.parametrize(
    ("protocol", "flags"),
    [
        ("tcp", ["-T"]),
        ("tcp", ["-T", "--octet-count"]),
        ("tcp", ["-T", "--rfc3164"]),
        ("udp", ["-d"]),
        ("udp", ["-d", "--rfc3164"]),
    ],
)
def test_the_program_logger_can_send(gateway: GatewayInProcess, protocol: str, flags: list[str]) -> None:
    if shutil.which("logger") is None:
        pytest.skip("the program logger (util-linux) is not installed")

    async def work(address: tuple[str, int]) -> None:
        command = ["logger", *flags, "-n", address[0], "-P", str(address[1]), "-t", "teleport", "-S", "4KiB"]
        process = await asyncio.create_subprocess_exec(*command, session(1).decode())
        assert await process.wait() == 0
        await until(lambda: len(gateway.kafka.records) == 1)

    run(gateway, protocol, work)
    assert sessions(gateway) == ["s1"]


def test_a_listener_goes_on_when_its_source_is_removed_and_comes_back(gateway: GatewayInProcess) -> None:
    sources, credentials = gateway.gateway._access

    async def work(address: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, structlog.testing.capture_logs() as logs:
            gateway.gateway.use({}, credentials)
            sender.sendto(rfc_5424(1), address)
            await until(lambda: bool(logs))
            assert logs[0]["reason"] == "there is no source teleport any more"
            gateway.gateway.use(sources, credentials)
            sender.sendto(rfc_5424(2), address)
            await until(lambda: len(gateway.kafka.records) == 1)

    run(gateway, "udp", work)
    assert sessions(gateway) == ["s2"]


def test_a_stop_ends_open_connections(gateway: GatewayInProcess) -> None:
    async def work(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(rfc_5424(2) + b"\n")
        await until(lambda: len(gateway.kafka.records) == 1)

    run(gateway, "tcp", work)
    assert sessions(gateway) == ["s2"]


CONFIG: dict[str, Any] = {"source": SOURCES}


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ({"protocol": "tcp", "listen": "0.0.0.0:514", "source": "vault"}, "only a loopback address"),
        ({"protocol": "udp", "listen": "[::]:514", "source": "vault"}, "only a loopback address"),
        ({"protocol": "udp", "listen": "127.0.0.1:514"}, "source is required with udp"),
        ({"protocol": "tls", "listen": "127.0.0.1:6514", "source": "vault"}, "the client certificate decides"),
        ({"protocol": "tls", "listen": "127.0.0.1:6514"}, "tls needs tls_certificate"),
        ({"protocol": "tcp", "listen": "127.0.0.1:514", "source": "bot"}, "no source bot with a tool"),
        ({"protocol": "tcp", "listen": "127.0.0.1:514", "source": "nobody"}, "no source nobody"),
    ],
)
def test_a_listener_needs_a_source_and_off_loopback_a_certificate(listener: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GatewayConfig.model_validate({**CONFIG, "syslog": [listener]})
