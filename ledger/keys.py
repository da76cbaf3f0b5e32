"""Ed25519 keys (RFC 8032): the signer, PEM files, and which public key a log was signed with at which size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)


class KeyFormatError(ValueError):
    """Key material that cannot be read. The message never contains any of it."""


@dataclass(frozen=True, slots=True)
class LogKey:
    """One public key, 32 raw bytes, and by origin the smallest checkpoint size that it signs; 0 where none is given."""

    public_key: bytes
    first_sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The public keys of a deployment's logs, oldest first.

    A deployment begins with one key. Each entry of type ``key.changed``, sealed under the old key, adds the next one.
    """

    keys: tuple[LogKey, ...]

    @classmethod
    def single(cls, public_key: bytes) -> LogKeys:
        """Return the keys of a deployment whose key never changed."""
        return cls((LogKey(public_key),))

    def at(self, origin: str, size: int) -> bytes:
        """Return the public key that signs the checkpoint of this size: the newest key that holds by then."""
        for key in reversed(self.keys[1:]):
            if key.first_sizes.get(origin, 0) <= size:
                return key.public_key
        return self.keys[0].public_key


class Signer(Protocol):
    """Signs with one Ed25519 key, which may be in memory or in another service."""

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes of the public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032 section 5.1.6) over the message."""
        ...


class LocalSigner:
    """Signs with a private key in the memory of this process."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private = private_key
        self.public_key = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def generate(cls) -> LocalSigner:
        """Generate a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None) -> LocalSigner:
        """Read a PKCS#8 PEM.

        Raises:
            KeyFormatError: not PEM, not Ed25519, or the passphrase is missing, wrong or not needed.
        """
        try:
            key = load_pem_private_key(pem, passphrase)
        except TypeError as error:
            problem = "encrypted and no passphrase is" if passphrase is None else "not encrypted, a passphrase is"
            raise KeyFormatError(f"the private key is {problem} given") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            hint = "" if passphrase is None else ", or the passphrase is wrong"
            raise KeyFormatError(f"the private key is not a readable PKCS#8 PEM{hint}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFormatError("the private key is not an Ed25519 key")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over the message."""
        return self._private.sign(message)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return the private key as PKCS#8 PEM, encrypted if a passphrase is given."""
        encryption = BestAvailableEncryption(passphrase) if passphrase is not None else NoEncryption()
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(public_key: bytes) -> bytes:
    """Return a raw public key as SubjectPublicKeyInfo PEM."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_pem(pem: bytes) -> bytes:
    """Return the 32 raw bytes of an Ed25519 public key in PEM.

    Raises:
        KeyFormatError: not PEM, or not an Ed25519 public key.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFormatError("the public key is not a readable PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFormatError("the public key is not an Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
