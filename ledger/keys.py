"""Ed25519 keys: making them, PKCS#8 PEM, and what signs."""

from __future__ import annotations

from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)


class KeyFormatError(ValueError):
    """Key material that cannot be read; the message never contains any of it."""


class Signer(Protocol):
    """Anything that signs with one Ed25519 key: a key in memory, or one kept elsewhere."""

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes of the public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032) over the message."""
        ...


class LocalSigner:
    """Signs with a private key held in this process."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private = private_key
        self._public = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def generate(cls) -> LocalSigner:
        """Make a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None) -> LocalSigner:
        """Read a PKCS#8 PEM.

        Raises:
            KeyFormatError: not PEM, not Ed25519, or the passphrase is missing, wrong or superfluous.
        """
        try:
            key = load_pem_private_key(pem, passphrase)
        except TypeError as error:
            wanted = (
                "is encrypted and no passphrase is given"
                if passphrase is None
                else "is not encrypted, a passphrase is given"
            )
            raise KeyFormatError(f"the private key {wanted}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            hint = "" if passphrase is None else ", or the passphrase is wrong"
            raise KeyFormatError(f"the private key is not a readable PKCS#8 PEM{hint}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFormatError("the private key is not an Ed25519 key")
        return cls(key)

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes of the public key."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over the message."""
        return self._private.sign(message)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return the private key as PKCS#8 PEM, encrypted where a passphrase is given."""
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(passphrase) if passphrase is not None else NoEncryption()
        )
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(public_key: bytes) -> bytes:
    """Return a raw public key as SubjectPublicKeyInfo PEM."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_pem(pem: bytes) -> bytes:
    """Return the 32 raw bytes of an Ed25519 public key in PEM.

    Raises:
        KeyFormatError: it is not that.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFormatError("the public key is not a readable PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFormatError("the public key is not an Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
