"""From the configuration to channels that can be used: secrets are read here, once."""

from __future__ import annotations

import time
from collections.abc import Callable

from .alertmanager import Alertmanager
from .config import AlertConfig, AlertmanagerChannel
from .outbox import Route
from .webhook import Webhook


def build_routes(config: AlertConfig, clock: Callable[[], float] = time.time) -> list[Route]:
    """Return every channel of a configuration.

    Raises:
        AlertConfigError: a secret or a TLS file is not there, or not right; names the field.
    """
    return [
        Route(
            name,
            channel,
            Alertmanager(name, channel, clock)
            if isinstance(channel, AlertmanagerChannel)
            else Webhook(name, channel, clock),
        )
        for name, channel in config.channels.items()
    ]
