"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from ..base.errors import DependencyError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server can listen on a port."""
    with socket.socket() as probe:
        # As Java does: a port whose old connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(*preferred: int | None, taken: int | None = None) -> int:
    """Return the first preferred port that is free, else a random one.

    A random port is below the range of outgoing connections. From that range, the kernel could give the port of a
    stopped server to a client that retries, and the client would connect to itself.

    Args:
        taken: a port that must not be returned.
    """
    try:
        top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        top = 32768
    drawn = (random.randrange(10_000, max(top, 12_000)) for _ in range(1000))  # noqa: S311 - not for secrets
    for port in (*preferred, *drawn):
        if port is not None and port != taken and is_free(port):
            return port
    raise DependencyError(f"no free port on {HOST} between 10000 and {top}")
