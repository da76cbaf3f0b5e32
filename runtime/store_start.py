"""Starts the process that owns the embedded store, in its sandbox.

`start` reads keys and secrets, closes the sandbox and executes `store_program` in it: the new program has one
restricted thread, from which all others descend, and an environment without secrets. It receives its settings in a
file in memory. It imports the engine and the web server; this module does not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import SecretStr

from ..base.files import check_working_folder
from ..ledger.key_list import write_key_list
from ..schemas.own_sources import READER, STORE
from . import landlock
from .data_folder import close_to_others, make_folder
from .keys import load_log_keys
from .remembered_endpoint import RememberedEndpoint, recall_endpoint
from .settings import Settings, SettingsError
from .source_keys import own_key_file
from .store_sandbox import file_rules, kept_environment, port_rules, without_key_files

# Older versions cannot allow a rename from one folder to another.
OLDEST_VERSION = 2
PROGRAM = f"{__package__}.store_program"
# Python must not add a variable to the environment at its start: see `store_program`.
PYTHON = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "1"}
# The engine's allocator returns free memory after a second, not after five.
ALLOCATOR = {"JE_MALLOC_CONF": "dirty_decay_ms:1000,muzzy_decay_ms:0"}
_NOT_NEEDED = frozenset({
    "config", "key_file", "public_key_file", "key_passphrase", "key_passphrase_file", "clickhouse_password",
    "schema_registry_password", "source_key_folder", "source_key_file", "source_key_passphrase_file",
    "sql_tls_certificate", "sql_tls_key",
})  # fmt: skip


def start(settings: Settings) -> NoReturn:
    """Replace this process by the store in its sandbox; without Landlock, by the store alone, with a warning."""
    check_working_folder()
    settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
    keys, remembered = _keys(settings) | _tls(settings), recall_endpoint(settings.data_dir)
    settings.require_deployment()
    try:
        given = settings.model_copy(update={"kafka_options": without_key_files(settings.kafka_options)})
    except OSError as error:
        raise SettingsError(f"{error.filename}: {error.strerror} (kafka_options)") from error
    close_to_others(settings.data_dir)
    run = settings.data_dir / "run"
    for folder in (settings.store_path, temporary_folder(settings), settings.query_spool_path, run):
        make_folder(folder)
    settings.store_path.with_name(f"{settings.store_path.name}.lock").touch(0o600)
    version = landlock.abi() if landlock.abi() >= OLDEST_VERSION else 0
    if version:
        landlock.restrict(file_rules(settings), port_rules(settings, remembered.port if remembered else None))
    descriptor = _in_memory(given, keys, remembered, version)
    own_temporary = temporary_folder(settings) / str(os.getpid())
    make_folder(own_temporary)
    environment = kept_environment(os.environ) | PYTHON | ALLOCATOR | {"TMPDIR": str(own_temporary)}
    # The folder is an argument only so that people recognize the process.
    program = [sys.executable, "-m", PROGRAM, str(descriptor), str(settings.data_dir)]
    os.execve(sys.executable, program, environment)  # noqa: S606 - our own program


def temporary_folder(settings: Settings) -> Path:
    """Return the folder for temporary files of the engine."""
    return settings.store_path.with_name(f"{settings.store_path.name}.tmp")


def _keys(settings: Settings) -> dict[str, str]:
    """Return the public keys of the logs, and the private keys by which the store signs its own events."""
    own = {name: own_key_file(settings, name).read().to_pem(None).decode() for name in (READER, STORE)}
    return {"log": write_key_list(load_log_keys(settings)).decode(), **own}


def _tls(settings: Settings) -> dict[str, str]:
    """Return the certificate and its key for `sql_listen`: in the sandbox, their files cannot be read."""
    if not settings.sql_listen:
        return {}
    files = {"sql_tls_certificate": settings.sql_tls_certificate, "sql_tls_key": settings.sql_tls_key}
    texts = {}
    for name, path in files.items():
        if path is None:
            raise SettingsError(
                f"{name} is missing: sql_listen is for other machines, and passwords and answers would cross the "
                "network in the clear"
            )
        try:
            texts[name] = path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: {getattr(error, 'strerror', None) or error} ({name})") from error
    return texts


def _in_memory(settings: Settings, keys: Mapping[str, str], remembered: RememberedEndpoint | None, version: int) -> int:
    content = {
        "settings": _plain(settings),
        "keys": dict(keys),
        "remembered": remembered.as_json() if remembered else None,
        "version": version,
    }
    descriptor = os.memfd_create("settings", 0)
    with os.fdopen(os.dup(descriptor), "w") as file:
        json.dump(content, file)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _plain(settings: Settings) -> dict[str, Any]:
    """Return the settings that the store needs, with their secrets."""
    plain = settings.model_dump(mode="json", exclude_unset=True, exclude=set(_NOT_NEEDED))
    for name in plain:
        if isinstance(value := getattr(settings, name), SecretStr):
            plain[name] = value.get_secret_value()
    return plain
