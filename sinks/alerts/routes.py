"""Builds the channels of a configuration. Secrets are read here, once."""

from __future__ import annotations

import time
from collections.abc import Callable

from .alertmanager import Alertmanager
from .channel import Channel, Route
from .config import AlertConfig, AlertmanagerChannel
from .webhook import Webhook


def build_routes(config: AlertConfig, clock: Callable[[], float] = time.time) -> list[Route]:
    """Return every channel of a configuration. A ConfigError names the key of an unusable secret or TLS file."""
    routes = []
    for name, given in config.channels.items():
        key = f"channels.{name}"
        channel: Channel
        if isinstance(given, AlertmanagerChannel):
            channel = Alertmanager(key, given, clock, config.runbook_base_url)
        else:
            channel = Webhook(key, given, clock, config.runbook_base_url)
        routes.append(Route(name, given, channel))
    return routes
