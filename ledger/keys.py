"""Ed25519 keys (RFC 8032): the signer, PEM files, and which key signs a log at which size."""

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

from .entry import split_origin


class KeyFormatError(ValueError):
    """Key material that cannot be read. The message never contains any of it."""


@dataclass(frozen=True, slots=True)
class LogKey:
    """One public key, 32 raw bytes, and from where on it signs.

    Attributes:
        first_sizes: the smallest checkpoint size that it signs, by origin; at most one epoch of each log. Of the first
            key of a deployment it is empty.
    """

    public_key: bytes
    first_sizes: Mapping[str, int] = field(default_factory=dict)
    _begins: Mapping[str, tuple[int, int]] = field(init=False, repr=False, compare=False)
    """Epoch and size from which it signs, by origin without the epoch."""

    def __post_init__(self) -> None:
        begins = {}
        for origin, size in self.first_sizes.items():
            log, epoch = split_origin(origin)
            if log in begins:
                raise ValueError(f"{log} is listed in two epochs")
            begins[log] = (epoch, size)
        object.__setattr__(self, "_begins", begins)

    def signs(self, log: str, epoch: int, size: int) -> bool:
        """Whether the key, or a later one, signs the checkpoint of this size."""
        begin = self._begins.get(log)
        return begin is None or begin <= (epoch, size)


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

    @property
    def newest(self) -> bytes:
        """The public key that signs everything from now on, except the heads of logs without an entry since."""
        return self.keys[-1].public_key

    def periods(self, origin: str) -> list[tuple[int, bytes]]:
        """Return the keys that sign a log, each with the first checkpoint size that it signs."""
        found: list[tuple[int, bytes]] = []
        for size in sorted({0, *(key.first_sizes.get(origin, 0) for key in self.keys)}):
            if not found or found[-1][1] != self.at(origin, size):
                found.append((size, self.at(origin, size)))
        return found

    def at(self, origin: str, size: int) -> bytes:
        """Return the public key that signs the checkpoint of this size: the newest key that holds by then.

        A log that a key does not list was opened after the change, and so was a later epoch of a listed log.
        """
        if len(self.keys) > 1:
            try:
                log, epoch = split_origin(origin)
            except ValueError:  # no log of ours; other checks refuse it
                return self.newest
            for key in reversed(self.keys[1:]):
                if key.signs(log, epoch, size):
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


@dataclass(frozen=True, slots=True)
class LogSigners:
    """The signers that a sealer has, by public key: the newest, and older ones for logs without an entry since."""

    keys: LogKeys
    signers: Mapping[bytes, Signer]

    @classmethod
    def single(cls, signer: Signer) -> LogSigners:
        """Return the signer of a deployment whose key never changed."""
        return cls(LogKeys.single(signer.public_key), {signer.public_key: signer})

    @property
    def newest(self) -> Signer:
        """The signer of everything but the heads of logs without an entry since the last change."""
        return self.signers[self.keys.newest]

    def at(self, origin: str, size: int) -> Signer | None:
        """Return the signer of the checkpoint of this size; None if its private key is not here."""
        return self.signers.get(self.keys.at(origin, size))


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
