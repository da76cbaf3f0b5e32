"""Why an event is not signed as its registered source must sign it. Slow: only for events that are not believed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from ..schemas.own_sources import PREFIX
from .source_keys import OWN_TOPICS, Registration, SignedRecord, SourceKeys, ValidKey
from .source_signature import KEY_ID_SIZE, SIGNATURE_SIZE, SIGNED_TOPICS, is_signed_by, signature_in, signed_bytes

_REST = (
    "the signature does not fit: the signer has another deployment name than {!r}, signs other bytes, or the record "
    "was changed after it was signed"
)


def mistake_in(keys: SourceKeys, record: SignedRecord, system: bytes, instance: bytes, tenant: bytes) -> str:
    """Return why :meth:`.SourceKeys.status` is ``missing`` or ``invalid``, as a sentence for people.

    If the signature names the right key, the usual mistakes are tried: another topic, the topic with the prefix,
    another deployment name, another key of the record.
    """
    signature, registered = signature_in(record.headers), keys.registered_at((system, instance), record.append_time_ms)
    if record.topic in OWN_TOPICS and not system.startswith(PREFIX.encode()):
        return "only the pipeline's own sources are believed in this topic"
    if signature is None:
        return "the record has no signature"
    if registered is None:
        return "no source of the pipeline has this name"
    if len(signature) != KEY_ID_SIZE + SIGNATURE_SIZE:
        return f"the signature has {len(signature)} bytes, not {KEY_ID_SIZE + SIGNATURE_SIZE}"
    key = registered.keys.get(signature[:KEY_ID_SIZE])
    if key is None:
        return _other_key(registered, signature[:KEY_ID_SIZE])
    if not key.valid_from_ms <= record.append_time_ms < key.valid_until_ms:
        return f"the key {signature[:KEY_ID_SIZE].hex()} was not valid then: {_validity(key)}"
    if registered.tenant not in (None, tenant):
        return "the source is registered for another tenant"
    return mistake_of_signer(key.public_key, signature, record, keys.deployment, keys.topic_prefix)


def mistake_of_signer(
    public_key: bytes, signature: bytes, record: SignedRecord, deployment: str, topic_prefix: str
) -> str:
    """Return why a header value does not fit a record, as a sentence for people, if it names the right key."""
    tried = _mistakes(deployment, record, topic_prefix)
    fits = (text for text, message in tried if is_signed_by(public_key, signature, message))
    return next(fits, _REST.format(deployment))


def _mistakes(deployment: str, record: SignedRecord, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield known mistakes of signers, each with the message that would then be signed."""
    topic, key, value = record.topic, record.key, record.value
    names = ["", deployment.partition(".")[0], deployment.rpartition("-")[0], prefix.rstrip(".-_")]
    for name in dict.fromkeys(names):
        if name != deployment:
            yield (
                f"the signer has the deployment name {name!r}, not {deployment!r}",
                signed_bytes(name, topic, key, value),
            )
    if prefix:
        text = f"it signs the topic {prefix + topic!r}, with the topic prefix; it must sign {topic!r}"
        yield text, signed_bytes(deployment, prefix + topic, key, value)
    for other in sorted(SIGNED_TOPICS - {topic}):
        yield f"it signs the topic {other!r}; the record is in {topic!r}", signed_bytes(deployment, other, key, value)
    for other_key in {None, b""} - {key}:
        yield "it signs another key of the record", signed_bytes(deployment, topic, other_key, value)


def _other_key(registered: Registration, key_id: bytes) -> str:
    known = ", ".join(one.hex() for one in registered.keys) or "none"
    return f"the key {key_id.hex()} is not one of this source (registered: {known})"


def _validity(key: ValidKey) -> str:
    until = f", until {_time(key.valid_until_ms)}" if key.valid_until_ms != float("inf") else ""
    return f"it is valid from {_time(key.valid_from_ms)}{until}"


def _time(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
