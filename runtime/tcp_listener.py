"""Listening TCP sockets for our HTTP servers, and the certificate that they show."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path


def tcp_listener(address: tuple[str, int], backlog: int = 512) -> socket.socket:
    """Listen on an IP address and a port. Raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.create_server(address, family=family, backlog=backlog)
    # Reopening the socket sets its protocol number, without which asyncio does not disable Nagle's algorithm (40 ms per
    # answer).
    return socket.socket(fileno=listener.detach())


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a server. Raises OSError, also as ssl.SSLError, if a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context
