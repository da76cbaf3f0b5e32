"""The keys of the logs on disk: private keys with mode 0600, and the list of the public keys."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..base.errors import UsageError
from ..base.files import write_whole
from ..ledger.key_list import read_key_list
from ..ledger.keys import KeyFormatError, LocalSigner, LogKeys, LogSigners, Signer, public_pem
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


def older_key_file(settings: Settings, number: int) -> PrivateKeyFile:
    """Return the private key that was number ``number`` of the list, counted from 1, before it was replaced."""
    file = log_key_file(settings)
    return replace(file, path=file.path.with_suffix(f".{number}{file.path.suffix}"))


def next_key_file(settings: Settings) -> PrivateKeyFile:
    """Return the private key that replaces the present one. It exists only while the key is being replaced."""
    file = log_key_file(settings)
    return replace(file, path=file.path.with_suffix(f".next{file.path.suffix}"))


def load_signer(settings: Settings) -> LocalSigner:
    """Read the private key of the logs."""
    signer = log_key_file(settings).read()
    if not settings.public_key_path.exists():  # create_key was interrupted; the folder may be read-only
        with suppress(OSError):
            _write_new(settings.public_key_path, public_pem(signer.public_key), 0o644)
    return signer


def load_signers(settings: Settings) -> LogSigners:
    """Read the private key of the logs, the list of public keys, and those older private keys that are still here.

    Raises:
        KeyUnavailableError: a file cannot be used, or they do not belong together.
    """
    newest, public_path = load_signer(settings), settings.public_key_path
    keys = load_log_keys(settings) if public_path.exists() else LogKeys.single(newest.public_key)
    if keys.newest != newest.public_key:
        raise KeyUnavailableError(
            f"{public_path} is not the public half of {settings.private_key_path}: restore both from the same backup "
            "(key_file, public_key_file), or run `grantledger keys rotate` again if it was interrupted"
        )
    signers: dict[bytes, Signer] = {newest.public_key: newest}
    for number, key in enumerate(keys.keys[:-1], 1):
        file = older_key_file(settings, number)
        if file.path.exists():
            signers[key.public_key] = signer = file.read()
            if signer.public_key != key.public_key:
                raise KeyUnavailableError(f"{file.path} is not the private half of key {number} in {public_path}")
    return LogSigners(keys, signers)


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


def load_log_keys(settings: Settings, given: Path | None = None) -> LogKeys:
    """Return the public keys that verify the signatures.

    Args:
        given: a file from the command line, such as an auditor's own copy.
    """
    path = given or settings.public_key_path
    try:
        return read_key_list(path.read_bytes())
    except FileNotFoundError:
        raise KeyUnavailableError(
            f"the public key of the logs {path} (public_key_file) does not exist. Copy log.pub from where the sealer "
            "runs; `grantledger init` creates it."
        ) from None
    except OSError as error:
        raise KeyUnavailableError(f"the public key {path} cannot be read: {error.strerror}") from error
    except KeyFormatError as error:
        raise KeyUnavailableError(f"{path}: {error}") from error
