"""The key pair of the logs on disk: created once, mode 0600, never replaced."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import UsageError
from ..base.files import write_whole
from ..ledger.keys import KeyFormatError, LocalSigner, public_pem, read_public_pem
from .settings import Settings


class KeyUnavailableError(UsageError):
    """The key cannot be used; the message names the file, the setting and the remedy."""


@dataclass(frozen=True, slots=True)
class PrivateKeyFile:
    """A private key on disk. ``setting`` and ``passphrase_setting`` name the settings for errors."""

    path: Path
    setting: str
    passphrase: bytes | None
    passphrase_setting: str
    remedy: str
    """What to do if the file does not exist."""

    def read(self) -> LocalSigner:
        """Read the key."""
        path = self.path
        try:
            mode = path.stat().st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise KeyUnavailableError(
                    f"the private key {path} is open to others ({stat.filemode(mode)}): chmod 600 {path}"
                )
            pem = path.read_bytes()
        except FileNotFoundError:
            problem = f"the private key {path} ({self.setting}) does not exist. {self.remedy}"
            raise KeyUnavailableError(problem) from None
        except OSError as error:
            problem = f"the private key {path} ({self.setting}) cannot be read: {error.strerror}"
            raise KeyUnavailableError(problem) from error
        try:
            return LocalSigner.from_pem(pem, self.passphrase)
        except KeyFormatError as error:
            raise KeyUnavailableError(f"{path}: {error} ({self.passphrase_setting})") from error

    def write(self, signer: LocalSigner) -> None:
        """Write the key to a new file with mode 0600."""
        self.write_new(self.path, signer.to_pem(self.passphrase), 0o600)

    def write_new(self, path: Path, content: bytes, mode: int) -> None:
        """Write a file that must not exist yet."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_new(path, content, mode)
        except FileExistsError as error:
            raise KeyUnavailableError(f"the key {error.filename2} ({self.setting}) exists already") from None
        except OSError as error:
            problem = f"the private key {path} ({self.setting}) cannot be written: {error.strerror}"
            raise KeyUnavailableError(problem) from error


def log_key_file(settings: Settings) -> PrivateKeyFile:
    """Return the private key of the logs on disk."""
    return PrivateKeyFile(
        settings.private_key_path, "key_file", passphrase(settings), "key_passphrase or key_passphrase_file",
        "A new ledger: create it with `grantledger init`. An existing ledger cannot continue without its key: restore "
        "it from your backup.",
    )  # fmt: skip


def load_signer(settings: Settings) -> LocalSigner:
    """Read the private key of the logs."""
    signer = log_key_file(settings).read()
    if not settings.public_key_path.exists():  # create_key was interrupted; the folder may be read-only
        with suppress(OSError):
            _write_new(settings.public_key_path, public_pem(signer.public_key), 0o644)
    return signer


def create_key(settings: Settings) -> LocalSigner:
    """Create the key pair of a new ledger. The caller has checked that no ledger exists."""
    path, public_path = settings.private_key_path, settings.public_key_path
    signer = LocalSigner.generate()
    file = log_key_file(settings)
    if public_path.exists() and not path.exists():
        raise KeyUnavailableError(
            f"the public key {public_path} exists without its private key {path} (key_file): restore the private key, "
            "or move the public key away; keep it, because the old ledger can only be verified with it"
        )
    file.write(signer)
    file.write_new(public_path, public_pem(signer.public_key), 0o644)
    return signer


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet, completely or not at all, even if the machine crashes."""
    write_whole(path, path.with_name(f".{path.name}.{os.getpid()}"), content, mode=mode, new=True)


def passphrase(settings: Settings) -> bytes | None:
    """Return the passphrase of the private key; None if there is none."""
    if settings.key_passphrase is not None:
        if not (given := settings.key_passphrase.get_secret_value()):
            raise KeyUnavailableError("the passphrase of the private key is empty (key_passphrase)")
        return given.encode()
    return read_passphrase(settings.key_passphrase_file, "key_passphrase_file")


def read_passphrase(path: Path | None, setting: str) -> bytes | None:
    """Return the first line of a file; None without a file."""
    if path is None:
        return None
    try:
        first = path.read_bytes().split(b"\n", 1)[0].removesuffix(b"\r")
    except OSError as error:
        raise KeyUnavailableError(f"{path} ({setting}): {error.strerror}") from error
    if not first:
        raise KeyUnavailableError(f"{path} ({setting}): its first line is empty")
    return first


def load_public_key(settings: Settings, given: Path | None = None) -> bytes:
    """Return the 32 raw bytes of the public key that verifies the signatures.

    Args:
        given: a PEM file from the command line, such as an auditor's own copy.
    """
    path = given or settings.public_key_path
    try:
        return read_public_pem(path.read_bytes())
    except FileNotFoundError:
        raise KeyUnavailableError(
            f"the public key of the logs {path} (public_key_file) does not exist. Copy log.pub from where the sealer "
            "runs; `grantledger init` creates it."
        ) from None
    except OSError as error:
        raise KeyUnavailableError(f"the public key {path} cannot be read: {error.strerror}") from error
    except KeyFormatError as error:
        raise KeyUnavailableError(f"{path}: {error}") from error
