"""``grantledger run gateway``."""

from __future__ import annotations

from ...producers.gateway.config import load_gateway_config
from ...runtime.gateway import GatewayServer
from ...runtime.process import run_process
from ...runtime.settings import Settings, SettingsError


def command(settings: Settings) -> None:
    """Take events and the records of tools by HTTP: docs/gateway.md.

    Success is answered when the events are in Kafka, or on a spool on disk while Kafka is away.

    Exit codes: 0 stopped on request; 1 the Kafka producer or the spool cannot go on: restart it; 2 a setting or the
    configuration is wrong.
    """
    if settings.gateway_config is None:
        raise SettingsError("there is no configuration: set GRANTLEDGER_GATEWAY_CONFIG to the gateway's TOML file")
    config = load_gateway_config(settings.gateway_config)
    if without := config.without_credential():
        raise SettingsError(
            f"{settings.gateway_config}: nobody can send as {', '.join(without)}: give each a token with `grantledger "
            f"gateway token {without[0]}`, or certificate_names, or webhook_secret"
        )
    server = GatewayServer(settings, config)
    run_process("gateway", settings, server.run, server.stop)
