"""Keys of sources on disk, and their registration: of the pipeline's own sources, and of any other."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..base.times import EPOCH
from ..kafka.publisher import Publisher
from ..kafka.sealed_log import SealedLogs
from ..kafka.source_keys_reader import SourceKeysReader
from ..ledger.keys import LocalSigner
from ..ledger.source_keys import SourceKeys, registration_key
from ..ledger.source_signature import SourceSigner, key_id_of
from ..schemas.event import Actor, Event, EventSource, RegisteredSource, SourceKey, Subject
from ..schemas.own_sources import OPERATOR, OWN_SOURCES
from .keys import PrivateKeyFile, load_log_keys, read_passphrase
from .settings import Settings


def key_file(settings: Settings, path: Path, remedy: str) -> PrivateKeyFile:
    """Return a private key of a source on disk."""
    given = read_passphrase(settings.source_key_passphrase_file, "source_key_passphrase_file")
    return PrivateKeyFile(path, "source_key_folder or source_key_file", given, "source_key_passphrase_file", remedy)


def own_key_file(settings: Settings, source: str) -> PrivateKeyFile:
    """Return the private key of one of the pipeline's own sources."""
    remedy = "`grantledger init` creates it. Copy it from where you ran that, or restore it from your backup."
    return key_file(settings, settings.source_key_path / f"{source}.pem", remedy)


def own_signer(settings: Settings, source: str) -> SourceSigner:
    """Return the signer of one of the pipeline's own sources."""
    return SourceSigner(settings.require_deployment(), own_key_file(settings, source).read())


def sender_signer(settings: Settings, path: Path) -> SourceSigner:
    """Return the signer of the commands that send events."""
    file = key_file(settings, path, "`grantledger sources add` creates one.")
    return SourceSigner(settings.require_deployment(), file.read())


def registered_sources(settings: Settings) -> SourceKeys:
    """Return the sources that are registered now, in force or not yet.

    Raises:
        KafkaUnavailableError: the brokers do not answer.
        SealedLogStoppedError: the sealed log of findings is discontinuous.
    """
    keys, cluster = load_log_keys(settings), settings.cluster()
    cluster.check_answers()
    logs = SealedLogs(cluster, settings.require_deployment(), keys, on_problem=lambda _: None)
    reader = SourceKeysReader(logs)
    try:
        return reader.until(int(time.time() * 1000))
    finally:
        reader.close()


def register_own_sources(settings: Settings, known: SourceKeys, person: str) -> int:
    """Create the missing keys of the pipeline's own sources, and register those sources that are not registered yet.

    Args:
        known: the sources that are registered.
        person: who registers them, for the record.

    Returns:
        How many were registered.
    """
    deployment, registered = settings.require_deployment(), known.stated()
    missing = [source for source in OWN_SOURCES if (source, deployment) not in registered]
    if not missing:
        return 0
    events = []
    for source in missing:
        file = own_key_file(settings, source)
        if not file.path.exists():
            file.write(LocalSigner.generate())
        keys = (source_key(file.read().public_key, EPOCH),)
        stated = RegisteredSource(source, deployment, None, keys, initial=True)
        events.append(registration(deployment, stated, person=person, reason="a source of the pipeline"))
    publish_as_operator(settings, events)
    return len(missing)


def source_key(public_key: bytes, valid_from: datetime, valid_until: datetime | None = None) -> SourceKey:
    """Return a key as it is registered."""
    return SourceKey(key_id_of(public_key).hex(), public_key, valid_from, valid_until)


def registration(deployment: str, stated: RegisteredSource, *, person: str, reason: str) -> Event:
    """Return the event by which a person registers a source."""
    key = registration_key(stated.system, stated.instance)
    return operator_event("source.registered", deployment, key, person, reason=reason, registered_source=stated)


def operator_event(
    event_type: str, deployment: str, about: str, person: str, native_type: str = "decision", **fields: Any
) -> Event:
    """Return an event that a person causes by command. ``about`` is its subject; ``fields`` are further ones."""
    now = datetime.now(UTC)
    return Event(
        event_type=event_type,
        occurred_at=now,
        source=EventSource(OPERATOR, deployment, f"{about}:{now.isoformat()}", native_type),
        subject=Subject(about, "system"),
        actor=Actor(person, "human"),
        outcome="success",
        **fields,
    )


def publish_as_operator(settings: Settings, events: Iterable[Event]) -> None:
    """Publish events that people cause, signed by the operator, in this order."""
    operator_publisher(settings).publish_events(events)


def operator_publisher(settings: Settings) -> Publisher:
    """Return a publisher that signs as the operator. Raises KafkaUnavailableError if the brokers do not answer."""
    settings.cluster().check_answers()
    return Publisher(settings.cluster(), own_signer(settings, OPERATOR))
