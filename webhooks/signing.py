"""Signatures of Standard Webhooks 1.0.0 (standardwebhooks.com).

The ``standardwebhooks`` package would replace three lines, but it signs with one key at a time and accepts any text as
a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from ..base.toml import ConfigError

MOST_SIGNATURES = 8
"""In one header: a sender gives one per key."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - a marker, not a secret


def parse_signing_keys(text: str, key: str) -> tuple[bytes, ...]:
    """Return the signing keys in a text: one, or several separated by spaces while a new one replaces an old one.

    Args:
        key: the configuration key, for the error.

    Raises:
        ConfigError: a secret is not ``whsec_`` and base64 of 24 to 64 bytes. The message does not show it.
    """
    keys = []
    for secret in text.split():
        try:
            found = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            found = b""
        if not secret.startswith(SECRET_PREFIX) or not 24 <= len(found) <= 64:
            raise ConfigError(f"{key}: must be whsec_ and base64 of 24 to 64 bytes")
        keys.append(found)
    return tuple(keys)


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``: one ``v1`` signature per key.

    Args:
        timestamp: of this attempt, seconds since 1970.
    """
    content = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return " ".join("v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys)


def verifies(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes, given: str) -> bool:
    """Return whether one of the signatures in ``webhook-signature`` is right. Compares in constant time."""
    right = [one.encode() for one in sign(keys, message_id, timestamp, body).split(" ")]
    found = [hmac.compare_digest(one.encode(), own) for one in given.split(" ")[:MOST_SIGNATURES] for own in right]
    return any(found)
