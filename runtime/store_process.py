"""The process that owns the embedded store and serves SQL, in its sandbox.

`start` reads keys and secrets, closes the sandbox and executes this module in it: the new program has one restricted
thread, from which all others descend, and an environment without secrets. It receives its settings in a file in memory.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn

import structlog
from prometheus_client import Gauge
from pydantic import SecretStr

from ..base.errors import GrantledgerError
from ..kafka.sealed_log_findings import SYSTEM as READER
from ..kafka.signing import source_signer
from ..sinks.clickhouse import StoreLock, load_engine, private_temp
from ..sinks.store import Store
from . import landlock
from .data_folder import close_to_others, make_folder
from .keys import load_public_key
from .process import configure_logs, on_stop_signal, serving
from .query_publisher import published_statements
from .sealed_logs import sealed_logs
from .settings import Settings, SettingsError
from .source_keys import own_key_file
from .sql_endpoint import RememberedEndpoint, published_endpoint, query_spool, recall_endpoint
from .status import NO_SANDBOX
from .store_access import store_address
from .store_sandbox import file_rules, kept_environment, port_rules, without_key_files

log = structlog.get_logger("grantledger.store")

SOURCE = "grantledger-store"
"""The name by which the store signs its own events."""

SANDBOX = Gauge("grantledger_store_sandbox", "Version of the Landlock sandbox around the store; 0: no sandbox.")
# Older versions cannot allow a rename from one folder to another.
OLDEST_VERSION = 2
_NOT_NEEDED = frozenset({
    "config", "key_file", "public_key_file", "key_passphrase", "key_passphrase_file", "clickhouse_password",
    "schema_registry_password", "source_key_folder", "source_key_file", "source_key_passphrase_file",
})  # fmt: skip


def start(settings: Settings) -> NoReturn:
    """Replace this process by the store in its sandbox; without Landlock, by the store alone, with a warning."""
    settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
    keys, remembered = _keys(settings), recall_endpoint(settings.data_dir)
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
    environment = kept_environment(os.environ) | {"PYTHONDONTWRITEBYTECODE": "1"}
    # The folder is an argument only so that people recognize the process.
    program = [sys.executable, "-m", __name__, str(descriptor), str(settings.data_dir)]
    os.execve(sys.executable, program, environment)  # noqa: S606 - our own program


def serve(settings: Settings, keys: Mapping[str, str], remembered: RememberedEndpoint | None, version: int) -> None:
    """Store and serve SQL until a stop signal."""
    address = store_address(settings)
    with ExitStack() as stack:
        stack.callback(StoreLock(address.path).release)
        private_temp(address.path)
        load_engine()
        stack.enter_context(serving("store", settings))
        SANDBOX.set(version)
        if not version:
            log.warning("no_sandbox", reason=NO_SANDBOX)

        deployment = settings.require_deployment()
        signers = {name: source_signer(deployment, keys[name].encode()) for name in (READER, SOURCE)}
        spool = stack.enter_context(closing(query_spool(settings)))
        stack.enter_context(published_statements(spool, settings.cluster(), deployment, signers[SOURCE]))

        def open_endpoint() -> None:
            stack.enter_context(published_endpoint(settings, remembered, spool))

        logs = sealed_logs(settings, SOURCE, bytes.fromhex(keys["log"]), signers)
        store = Store(logs, address, on_ready=open_endpoint)
        on_stop_signal(store.stop)
        store.run()


def temporary_folder(settings: Settings) -> Path:
    """Return the folder for temporary files of the engine."""
    return settings.store_path.with_name(f"{settings.store_path.name}.tmp")


def _keys(settings: Settings) -> dict[str, str]:
    """Return the public key of the logs, and the private keys by which the store signs its own events."""
    own = {name: own_key_file(settings, name).read().to_pem(None).decode() for name in (READER, SOURCE)}
    return {"log": load_public_key(settings).hex(), **own}


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


def main() -> None:
    """Run in the sandbox. The argument is the descriptor of the settings."""
    with os.fdopen(int(sys.argv[1]), encoding="utf-8") as file:
        content = json.load(file)
    settings = Settings(**content["settings"])
    remembered = RememberedEndpoint.from_json(content["remembered"]) if content["remembered"] else None
    configure_logs(settings)
    try:
        serve(settings, content["keys"], remembered, content["version"])
    except GrantledgerError as error:
        print(f"grantledger: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
