"""The key pair of the logs on disk: made once, mode 0600, never replaced over an old ledger."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..ledger.keys import KeyFormatError, LocalSigner, public_pem, read_public_pem
from .settings import Settings


class KeyUnavailableError(Exception):
    """The key cannot be used; the message names the file and the setting and says what to do."""


def load_signer(settings: Settings) -> LocalSigner:
    """Read the private key of the logs.

    Raises:
        KeyUnavailableError: missing, readable by others, unreadable, or the passphrase does not fit.
    """
    path = settings.private_key_path
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise KeyUnavailableError(f"the private key {path} is open to others ({stat.filemode(mode)}): chmod 600 {path}")
        pem = path.read_bytes()
    except FileNotFoundError:
        raise KeyUnavailableError(
            f"the private key {path} (key_file) does not exist. Restore it from your backup; without it this ledger "
            "cannot go on, and no new key is made over an old ledger."
        ) from None
    except OSError as error:
        raise KeyUnavailableError(f"the private key {path} (key_file) cannot be read: {error.strerror}") from error
    try:
        return LocalSigner.from_pem(pem, passphrase(settings))
    except KeyFormatError as error:
        raise KeyUnavailableError(f"{path}: {error} (key_passphrase or key_passphrase_file)") from error


def create_key(settings: Settings) -> LocalSigner:
    """Make the key pair of a new ledger and write both halves; the caller knows that no ledger exists.

    Raises:
        KeyUnavailableError: a key is there already, or it cannot be written.
    """
    path = settings.private_key_path
    signer = LocalSigner.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(signer.to_pem(passphrase(settings)))
            file.flush()
            os.fsync(file.fileno())
        settings.public_key_path.write_bytes(public_pem(signer.public_key))
    except FileExistsError:
        raise KeyUnavailableError(f"the private key {path} (key_file) exists already") from None
    except OSError as error:
        raise KeyUnavailableError(f"the private key {path} (key_file) cannot be written: {error.strerror}") from error
    return signer


def passphrase(settings: Settings) -> bytes | None:
    """Return the passphrase of the private key, or None where there is none.

    Raises:
        KeyUnavailableError: its file cannot be read or is empty.
    """
    if settings.key_passphrase is not None:
        return settings.key_passphrase.get_secret_value().encode()
    if settings.key_passphrase_file is None:
        return None
    try:
        first = settings.key_passphrase_file.read_text("utf-8").split("\n", 1)[0]
    except OSError as error:
        raise KeyUnavailableError(f"{settings.key_passphrase_file} (key_passphrase_file): {error.strerror}") from error
    if not first:
        raise KeyUnavailableError(f"{settings.key_passphrase_file} (key_passphrase_file): its first line is empty")
    return first.encode()


def load_public_key(settings: Settings, given: Path | None = None) -> bytes:
    """Return the 32 raw bytes of the public key that signatures are checked with.

    Args:
        given: a PEM file that the command line names, as an auditor does who got it on another way.

    Raises:
        KeyUnavailableError: it is missing or unreadable.
    """
    path = given or settings.public_key_path
    try:
        return read_public_pem(path.read_bytes())
    except OSError as error:
        raise KeyUnavailableError(f"the public key {path} cannot be read: {error.strerror}") from error
    except KeyFormatError as error:
        raise KeyUnavailableError(f"{path}: {error}") from error
