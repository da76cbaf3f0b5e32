"""The client of the commands that send events, and the effect of its errors on a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from ..base.errors import EXIT_USAGE, GrantledgerError
from ..kafka.topics import check_lifecycle_shards
from ..producers.client import Client, DeliveryError, QueueFullError, RecordSigner
from ..producers.history import HistoryMark
from ..runtime.event_schemas import schema_registry
from ..runtime.settings import Settings
from .errors import exit_code, fail

SOME_REFUSED = 1
"""Exit code: some input was refused; everything else is in Kafka."""


SourceKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--source-key",
        dir_okay=False,
        help="Private key of a registered source, which signs the events. Unsigned events in the name of a registered "
        "source are not believed. [GRANTLEDGER_SOURCE_KEY_FILE]",
    ),
]


def open_client(
    settings: Settings,
    *,
    system: str | None = None,
    instance: str = "default",
    source_key: Path | None = None,
    history: bool = False,
) -> Client:
    """Return a client for the brokers in the settings. If they do not answer, the command ends with exit code 2.

    ``history``: mark every event as an import of history.
    """
    with exit_code(EXIT_USAGE):
        return make_client(settings, system=system, instance=instance, source_key=source_key, history=history)


def make_client(
    settings: Settings,
    *,
    system: str | None = None,
    instance: str = "default",
    source_key: Path | None = None,
    history: bool = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Client:
    """Return a client for the brokers in the settings, which must answer. ``options``: further ones of librdkafka."""
    signer = _signer(settings, source_key)
    cluster = settings.cluster()
    cluster.check_answers()
    check_lifecycle_shards(cluster)
    return Client(
        {**settings.kafka_client_options(), **options},
        system=system,
        instance=instance,
        registry=schema_registry(settings),
        topic_prefix=settings.topic_prefix,
        lifecycle_shards=settings.lifecycle_shards,
        signer=HistoryMark(signer) if history else signer,
    )


def key_path(settings: Settings, given: Path | None) -> Path | None:
    """Return the private key that signs the events; None if they are unsigned."""
    return given or settings.source_key_file


def _signer(settings: Settings, given: Path | None) -> RecordSigner | None:
    """Return the signer of a registered source; None without a key."""
    path = key_path(settings, given)
    if path is None:
        return None
    from ..runtime.source_keys import sender_signer  # needs cryptography, which other senders do not install

    return sender_signer(settings, path)


@contextmanager
def sending_errors() -> Iterator[None]:
    """End the command with exit code 2 when events cannot be sent."""
    try:
        yield
    except GrantledgerError as error:
        fail(plain(error))


def plain(error: Exception) -> str:
    """Return an error of the client with the setting to check."""
    return f"{error} (kafka_bootstrap_servers)" if isinstance(error, DeliveryError | QueueFullError) else str(error)
