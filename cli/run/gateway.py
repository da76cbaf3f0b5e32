"""``grantledger run gateway``."""

from __future__ import annotations

import signal

from ...producers.gateway.config import GatewayConfig, load_gateway_config
from ...runtime.gateway import GatewayServer
from ...runtime.process import run_process
from ...runtime.settings import Settings, SettingsError


def command(settings: Settings) -> None:
    """Take events and the records of tools by HTTP and syslog: docs/gateway.md.

    Success is answered when the events are in Kafka, or on a spool on disk while Kafka is away. SIGHUP reads the
    sources and tokens of the configuration again.

    Exit codes: 0 stopped on request; 1 the Kafka producer or the spool cannot go on: restart it; 2 a setting or the
    configuration is wrong.
    """
    path = settings.gateway_config
    if path is None:
        raise SettingsError("there is no configuration: set GRANTLEDGER_GATEWAY_CONFIG to the gateway's TOML file")

    def load() -> GatewayConfig:
        config = load_gateway_config(path)
        if without := config.without_credential():
            raise SettingsError(
                f"{path}: nobody can send as {', '.join(without)}: give each a token with `grantledger gateway token "
                f"{without[0]}`, or certificate_names, or webhook_secret"
            )
        return config

    server = GatewayServer(settings, load)
    signal.signal(signal.SIGHUP, lambda _number, _frame: server.reload())
    run_process("gateway", settings, server.run, server.stop, server.asks)
