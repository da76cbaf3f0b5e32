"""Signatures of sources: the Kafka header by which a registered source signs each of its records.

Bytes: docs/ledger.md, "Signatures of sources".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..schemas.topics import COMMANDS_TOPIC, INPUT_TOPICS
from .entry import NO_HEADERS, with_length
from .keys import Signer

HEADER = "grantledger-signature"
SIGNED_TOPICS = frozenset({*INPUT_TOPICS, COMMANDS_TOPIC})
KEY_ID_SIZE = 8
SIGNATURE_SIZE = 64
_u32 = struct.Struct(">I")


def key_id_of(public_key: bytes) -> bytes:
    """Return the 8-byte id of a public key."""
    return sha256(public_key).digest()[:KEY_ID_SIZE]


def signed_bytes(deployment: str, topic: str, key: bytes | None, value: bytes | None) -> bytes:
    """Return the message that a source signs. ``topic`` is the name without a prefix."""
    return b"GLS1" + b"".join(map(with_length, (deployment.encode(), topic.encode(), key, value)))


@dataclass(frozen=True, slots=True)
class SourceSigner:
    """Signs the records of one source for one deployment."""

    deployment: str
    signer: Signer

    def headers(self, topic: str, key: str | bytes | None, value: bytes | None) -> list[tuple[str, bytes]]:
        """Return the Kafka headers of a record; none for topics that are not for events.

        ``topic`` is the name without a prefix.
        """
        if topic not in SIGNED_TOPICS:
            return []
        raw_key = key.encode() if isinstance(key, str) else key
        message = signed_bytes(self.deployment, topic, raw_key, value)
        return [(HEADER, key_id_of(self.signer.public_key) + self.signer.sign(message))]


def signature_in(headers: bytes) -> bytes | None:
    """Return the value of the first signature header, None without one. ``headers`` as in the payload hash.

    A header with a null value reads as an empty signature, which is invalid.
    """
    if headers in (b"", NO_HEADERS) or HEADER.encode() not in headers:
        return None
    try:
        at, count = 4, _u32.unpack_from(headers)[0]
        for _ in range(count):
            name, at = _blob(headers, at)
            value, at = _blob(headers, at)
            if name == HEADER.encode():
                return value
    except struct.error:
        return b""
    return None


def _blob(data: bytes, at: int) -> tuple[bytes, int]:
    size = _u32.unpack_from(data, at)[0]
    end = at + 4 + (0 if size == 0xFFFFFFFF else size)
    return data[at + 4 : end], end


def is_signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a header value is the signature of this key over a message."""
    if len(signature) != KEY_ID_SIZE + SIGNATURE_SIZE or signature[:KEY_ID_SIZE] != key_id_of(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature[KEY_ID_SIZE:], message)
    except (InvalidSignature, ValueError):
        return False
    return True
