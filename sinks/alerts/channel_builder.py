"""Builds the channels of a configuration. Secrets are read here, once."""

from __future__ import annotations

import time
from collections.abc import Callable

from .alertmanager import Alertmanager
from .channel import Channel, NamedChannel
from .config import AlertConfig, AlertmanagerChannel
from .webhook import Webhook


def build_channels(config: AlertConfig, clock: Callable[[], float] = time.time) -> list[NamedChannel]:
    """Return every channel of a configuration. A ConfigError names the key of an unusable secret or TLS file."""
    channels = []
    for name, given in config.channels.items():
        key = f"channels.{name}"
        channel: Channel
        if isinstance(given, AlertmanagerChannel):
            channel = Alertmanager(key, given, clock, config.runbook_base_url)
        else:
            channel = Webhook(key, given, clock, config.runbook_base_url)
        channels.append(NamedChannel(name, given, channel))
    return channels
