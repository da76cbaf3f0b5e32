"""The gateway as programs reach it: its real server with all listeners, and a Kafka that only remembers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from grantledger.producers.gateway.config import GatewayConfig
from grantledger.producers.gateway.credentials import token_digest
from grantledger.runtime import gateway
from grantledger.runtime.settings import Settings

from .gateway import FakeKafka
from .waiting import wait_for

TOKEN = "glt_sender"


class ServedGateway:
    """A running gateway: its ``url``, the ``ports`` of its syslog listeners by protocol, and what it stored."""

    def __init__(self, server: gateway.GatewayServer, kafka: FakeKafka) -> None:
        self.url, self.kafka = server.url, kafka
        self.ports = {
            protocol: int(address.rpartition(":")[2])
            for protocol, _, address in (one.partition(" ") for one in server.syslog_addresses)
        }

    @property
    def port(self) -> int:
        """The port of HTTP."""
        return int(self.url.rpartition(":")[2])

    def wait_for_events(self, count: int) -> list[dict[str, Any]]:
        """Return the events when there are at least so many."""
        wait_for(lambda: len(self.kafka.records) >= count, f"{count} events are in Kafka", limit=30, pause=0.02)
        return self.kafka.events


@contextmanager
def served(
    folder: Path, tool: str, *, syslog: tuple[str, ...] = (), more: Mapping[str, Any] | None = None
) -> Iterator[ServedGateway]:
    """Serve a gateway with one source, of a tool with instance ``i-1`` and the token ``TOKEN``.

    Args:
        syslog: protocols of listeners for this source.
        more: further keys of the configuration.
    """
    source = {"name": tool, "tool": tool, "instance": "i-1"}
    listeners = [
        {"protocol": one, "listen": "127.0.0.1:0", **({} if one == "tls" else {"source": tool})} for one in syslog
    ]
    config = GatewayConfig.model_validate(
        {
            "listen": "127.0.0.1:0",
            "source": [source],
            "token": [{"source": tool, "sha256": token_digest(TOKEN)}],
            "syslog": listeners,
            **(more or {}),
        }
    )
    settings = Settings(data_dir=folder, deployment="test.example", kafka_bootstrap_servers="127.0.0.1:1")
    kafka = FakeKafka()
    with (
        mock.patch.object(gateway, "Producer", lambda _options: kafka),
        mock.patch.object(gateway, "check_lifecycle_shards", lambda _cluster: None),
    ):
        server = gateway.GatewayServer(settings, lambda: config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            running = ServedGateway(server, kafka)
            with httpx.Client(base_url=server.url, verify=False, timeout=30) as client:
                wait_for(lambda: "Kafka answers" in client.get("/readyz").text, "Kafka answers", pause=0.02)
            yield running
        finally:
            server.stop()
            thread.join()
