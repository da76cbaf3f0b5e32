"""Replaces the key of the logs. Whatever step is interrupted, a second run completes it with the same new key.

The file ``log.next.pem`` has the new private key until the end. Until ``log.pub`` lists the new key, nothing changes
for any process; a change that was published and not completed is published again, with the sizes of that moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..base.errors import StoppedError
from ..base.files import write_whole
from ..kafka.sealed_log import SealedLogs
from ..ledger.anchor import AnchorTargetError
from ..ledger.key_change import EVENT_TYPE, SUBJECT, first_size_after, stated
from ..ledger.key_list import read_key_list, write_key_list
from ..ledger.keys import KeyFormatError, LocalSigner, LogKey, LogKeys
from ..processors.key_change import KeyChangeWriter, QuietLedger
from ..schemas.codec import EventEncoder
from ..schemas.own_sources import OPERATOR
from ..sinks.file_target import FileTarget
from .keys import (
    KeyUnavailableError,
    load_log_keys,
    load_signers,
    log_key_file,
    next_key_file,
    older_key_file,
)
from .sealed_logs import sealed_logs
from .settings import Settings
from .source_keys import operator_event

OnStep = Callable[[str], None]
"""Called with a sentence before each step that changes something."""


def rotate_key(settings: Settings, *, person: str, reason: str, on_step: OnStep) -> LogKeys:
    """Replace the key of the logs, or complete a change that was interrupted. Return the list of keys.

    Raises:
        StoppedError: a sealer or the anchor process runs, or a log is stopped.
        KeyUnavailableError: a key file cannot be used or written.
        KafkaUnavailableError: the brokers do not answer.
    """
    _check_files(settings)
    following = next_key_file(settings)
    if following.path.exists() and settings.public_key_path.exists():
        keys, new = load_log_keys(settings), following.read()
        if keys.newest == new.public_key:
            _replace_private_key(settings, keys, new, on_step)
            return keys
    signers = load_signers(settings)
    logs = sealed_logs(settings, OPERATOR, signers.keys)
    writer = KeyChangeWriter(logs, signers)
    on_step("waiting until no sealer is left")
    writer.take_over()
    quiet = _read(settings, writer)
    if not following.path.exists():
        on_step(f"writing the new private key to {following.path}")
        following.write(LocalSigner.generate())
    new = following.read()
    keys = _announce(logs, writer, quiet, signers.keys, new, person=person, reason=reason, on_step=on_step)
    on_step("checking that nothing else was sealed or anchored")
    if _read(settings, writer).sizes != _sizes_under(keys):
        raise StoppedError(
            "a sealer or the anchor process signed something meanwhile: stop them, also the service that starts them "
            "again, and run this command again. The key is not changed yet"
        )
    _keep_older(settings, len(keys.keys) - 1, on_step)
    on_step(f"writing the list of public keys to {settings.public_key_path}")
    _write(settings.public_key_path, write_key_list(keys), 0o644)
    _replace_private_key(settings, keys, new, on_step)
    return keys


def _read(settings: Settings, writer: KeyChangeWriter) -> QuietLedger:
    try:
        last = FileTarget(settings.anchor_path).last()
    except AnchorTargetError as error:
        raise StoppedError(str(error)) from error
    return writer.read({str(settings.anchor_path): last} if last is not None else {})


def _announce(
    logs: SealedLogs,
    writer: KeyChangeWriter,
    quiet: QuietLedger,
    keys: LogKeys,
    new: LocalSigner,
    *,
    person: str,
    reason: str,
    on_step: OnStep,
) -> LogKeys:
    """Write the change as the last entry under the old key, and return the list with the new key."""
    own, sizes = quiet.findings.genesis.origin, {origin: size + 1 for origin, size in quiet.sizes.items()}
    raw = stated(LogKey(new.public_key, sizes), own)
    event = operator_event(EVENT_TYPE, logs.deployment, SUBJECT, person, reason=reason, raw=raw)
    on_step("publishing key.changed")
    offset = writer.publish(EventEncoder().encode(event), event.key)
    on_step("sealing it under the old key, with everything before it")
    head = writer.seal(quiet.findings, offset)
    sizes[own] = first_size_after(head.size - 1)
    listed = LogKeys((*keys.keys, LogKey(new.public_key, sizes)))
    try:
        return read_key_list(write_key_list(listed))
    except KeyFormatError as error:
        raise StoppedError(f"a log that an older key signed is missing or shorter now: {error}") from error


def _sizes_under(keys: LogKeys) -> dict[str, int]:
    """Return the sizes that the logs have if the newest key has signed nothing yet."""
    return {origin: size - 1 for origin, size in keys.keys[-1].first_sizes.items()}


def _keep_older(settings: Settings, number: int, on_step: OnStep) -> None:
    """Keep the old private key: a log without a new entry restates its head with it."""
    file, old = older_key_file(settings, number), log_key_file(settings).read()
    if file.path.exists():
        if file.read().public_key != old.public_key:
            raise KeyUnavailableError(f"{file.path} is another key than {settings.private_key_path}: move it away")
        return
    on_step(f"keeping the old private key as {file.path}")
    file.write(old)


def _replace_private_key(settings: Settings, keys: LogKeys, new: LocalSigner, on_step: OnStep) -> None:
    file, following = log_key_file(settings), next_key_file(settings)
    if file.read().public_key != new.public_key:
        _keep_older(settings, len(keys.keys) - 1, on_step)
        on_step(f"replacing the private key {file.path}")
        _write(file.path, new.to_pem(file.passphrase), 0o600)
    on_step(f"removing {following.path}")
    following.path.unlink()


def _check_files(settings: Settings) -> None:
    """Check before anything is changed that the files can be written, and will belong to their present owner."""
    private, public = settings.private_key_path, settings.public_key_path
    for path in (private, public):
        if path.exists() and path.stat().st_uid != os.geteuid():
            raise KeyUnavailableError(f"{path} belongs to another user: run this command as that user (sudo -u)")
    for folder in {private.parent, public.parent}:
        if folder.exists() and not os.access(folder, os.W_OK):
            raise KeyUnavailableError(f"{folder} cannot be written (key_file, public_key_file)")


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        write_whole(path, path.with_name(f".{path.name}.{os.getpid()}"), content, mode=mode)
    except OSError as error:
        raise KeyUnavailableError(f"{path} cannot be written: {error.strerror}") from error
