"""The registered sources and their public keys, folded from the ``source.registered`` entries of ``access.findings``.

The rules are in docs/ledger.md, "Signatures of sources" and "Lifecycle shards". All times are append times in
milliseconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from ..base.times import EPOCH
from ..schemas.catalog import own_schemas
from ..schemas.codec import DecodeError, decode
from ..schemas.event import FINDINGS_TOPIC, QUERIES_TOPIC
from ..schemas.framing import FramingError
from ..schemas.own_sources import OPERATOR, PREFIX
from ..schemas.topics import COMMANDS_TOPIC
from .batch import Records
from .source_signature import is_signed_by, key_id_of, signature_in, signed_bytes

NOTICE_MS = 60_000
"""A registration is in force this long after its append time, so that every reader has it by then."""
_OWN = PREFIX.encode()
OWN_TOPICS = frozenset({FINDINGS_TOPIC, QUERIES_TOPIC, COMMANDS_TOPIC})
"""Topics in which only the pipeline's own sources are believed."""
KEY_PREFIX = b"source/"
"""The Kafka key of a registration begins with this."""
SHARDS_KEY = b"lifecycle-shards"
"""Kafka key and resource of the ``config.changed`` in which ``init`` states the number of lifecycle shards."""
SHARDS_STATED = re.compile(rb"[1-9][0-9]{0,3}")
_ALWAYS = -(2**63)

Status = Literal["valid", "missing", "invalid", "unregistered"]
"""Of a record: signed by a key of its source that is valid then; without a signature although the source is registered;
with a wrong one; or of a source that is not registered then. The middle two are not believed."""


class SignedRecord(NamedTuple):
    """What a signature covers, and its place. ``headers`` are encoded as for the payload hash."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: bytes
    append_time_ms: int


def signed_records(topic: str, records: Records) -> list[SignedRecord]:
    """Return the records of a batch."""
    columns = zip(records.keys, records.values, records.headers, records.append_times, strict=True)
    return [SignedRecord(topic, *one) for one in columns]


@dataclass(frozen=True, slots=True)
class ValidKey:
    """A public key and when it is valid."""

    public_key: bytes
    valid_from_ms: float
    valid_until_ms: float


@dataclass(frozen=True, slots=True)
class Registration:
    """One registration of a source. ``tenant`` None: every tenant."""

    in_force_ms: int
    tenant: bytes | None
    keys: Mapping[bytes, ValidKey]
    removed: bool


class SourceKeys:
    """Which source signs with which keys at which time, and in which shard each tenant belongs.

    ``topic_prefix``: that of the deployment. No signature covers it; it explains wrong ones.
    """

    def __init__(self, deployment: str, topic_prefix: str = "") -> None:
        self.deployment, self.topic_prefix = deployment, topic_prefix
        self._sources: dict[tuple[bytes, bytes], list[Registration]] = {}
        self._operator = (OPERATOR.encode(), deployment.encode())
        self._applied: set[str] = set()
        """Ids of the registrations. A copy of one changes nothing: old keys must not come back."""
        self.lifecycle_shards = 1
        """Number of partitions of ``access.lifecycle``."""

    @property
    def complete(self) -> bool:
        """Whether the operator is registered. ``init`` does that first; before, nothing else is registered either."""
        return self._operator in self._sources

    def concerns(self, topic: str, system: bytes, instance: bytes) -> bool:
        """Whether records of a source in a topic have another status than unregistered, at any time."""
        if not self.complete:
            return False
        return topic in OWN_TOPICS or system.startswith(_OWN) or (system, instance) in self._sources

    def status(self, record: SignedRecord, system: bytes, instance: bytes, tenant: bytes) -> Status:
        """Return the status of a record, whose value names this source and tenant.

        Registrations appended up to ``NOTICE_MS`` before the record must have been added.
        """
        if not self.concerns(record.topic, system, instance):
            return "unregistered"
        found = self.registered_at((system, instance), record.append_time_ms)
        own = system.startswith(_OWN)
        if found is None and not own and record.topic not in OWN_TOPICS:
            return "unregistered"
        signature = signature_in(record.headers)
        if signature is None:
            return "missing"
        if found is None or (record.topic in OWN_TOPICS and not own):
            return "invalid"
        key = found.keys.get(signature[:8])
        in_time = key is not None and key.valid_from_ms <= record.append_time_ms < key.valid_until_ms
        if key is None or not in_time or found.tenant not in (None, tenant):
            return "invalid"
        message = signed_bytes(self.deployment, record.topic, record.key, record.value)
        return "valid" if is_signed_by(key.public_key, signature, message) else "invalid"

    def is_believed(self, record: SignedRecord, datum: Mapping[str, Any], *, by: str | None = None) -> bool:
        """Whether a decoded event counts.

        Args:
            by: the only system that may report it, once sources are registered.
        """
        if not self.complete:
            return True
        status = self.status_of(record, datum)
        return status == "unregistered" or (status == "valid" and by in (None, datum["source"]["system"]))

    def status_of(self, record: SignedRecord, datum: Mapping[str, Any]) -> Status:
        """Return the status of a record with a decoded event."""
        try:
            source = datum["source"]
            named = (source["system"], source["instance"], datum["tenant"])
            return self.status(record, *(name.encode("utf-8", "replace") for name in named))
        except (AttributeError, KeyError, TypeError):  # a foreign schema, which names no source
            return "invalid"

    def learn(self, record: SignedRecord) -> bool:
        """Apply an entry of ``access.findings``, if it is a registration or states the number of lifecycle shards.

        Both use a released event schema. Return whether it changes anything.
        """
        key = record.key or b""
        if record.value is None or not (key.startswith(KEY_PREFIX) or key == SHARDS_KEY):
            return False
        try:
            datum = decode(record.value, own_schemas(), record.append_time_ms)
        except (DecodeError, FramingError):
            return False
        return self._learn_shards(record, datum) if key == SHARDS_KEY else self.add(record, datum)

    def _learn_shards(self, record: SignedRecord, datum: Mapping[str, Any]) -> bool:
        """Apply the first number that the operator states: events must not change their place afterwards."""
        if self.lifecycle_shards > 1 or not self.complete or self.status_of(record, datum) != "valid":
            return False
        stated, by = datum.get("raw") or b"", datum["source"]["system"]
        if datum.get("event_type") != "config.changed" or by != OPERATOR or not SHARDS_STATED.fullmatch(stated):
            return False
        self.lifecycle_shards = int(stated)
        return True

    def add(self, record: SignedRecord, datum: Mapping[str, Any]) -> bool:
        """Apply a decoded ``source.registered`` entry, in log order; return whether it changes anything.

        The first registration of the operator is signed with the key that it registers. The operator signs all others.
        """
        stated = datum.get("registered_source")
        if datum.get("event_type") != "source.registered" or not isinstance(stated, Mapping):
            return False
        try:
            id = datum["event_id"]
            if id in self._applied:
                return False
            source = (stated["system"].encode(), stated["instance"].encode())
            own = source[0].startswith(_OWN)
            # Only ``init`` registers the pipeline's own sources for the first time.
            initial = bool(stated["initial"]) and own and source not in self._sources
            new = _registration(stated, _ALWAYS if initial else record.append_time_ms + NOTICE_MS, removable=not own)
            if not self.complete:
                if source != self._operator or not initial or not self._is_self_signed(record, new):
                    return False
            elif not self.is_believed(record, datum, by=OPERATOR):
                return False
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return False
        self._applied.add(id)
        self._sources.setdefault(source, []).append(new)
        return True

    def _is_self_signed(self, record: SignedRecord, registration: Registration) -> bool:
        signature = signature_in(record.headers) or b""
        key = registration.keys.get(signature[:8])
        message = signed_bytes(self.deployment, record.topic, record.key, record.value)
        return key is not None and is_signed_by(key.public_key, signature, message)

    def registered_at(self, source: tuple[bytes, bytes], time_ms: int) -> Registration | None:
        """Return the registration in force then: of those that were, the last in log order."""
        in_force = [one for one in self._sources.get(source, ()) if one.in_force_ms <= time_ms]
        return in_force[-1] if in_force and not in_force[-1].removed else None

    def stated(self) -> dict[tuple[str, str], Registration]:
        """Return the last registration of each source, in force or not yet."""
        return {(system.decode(), instance.decode()): all_[-1] for (system, instance), all_ in self._sources.items()}


def registration_key(system: str, instance: str) -> str:
    """Return the Kafka key of a registration."""
    return f"{KEY_PREFIX.decode()}{system}/{instance}"


def _registration(stated: Mapping[str, Any], in_force_ms: int, *, removable: bool) -> Registration:
    keys = {}
    for one in stated["keys"]:
        public_key, until = bytes(one["public_key"]), one["valid_until"]
        if len(public_key) != 32 or one["key_id"] != key_id_of(public_key).hex():
            raise ValueError("not an Ed25519 public key with its id")
        end = float("inf") if until is None else _ms(until)
        keys[key_id_of(public_key)] = ValidKey(public_key, _ms(one["valid_from"]), end)
    tenant = None if stated["tenant"] is None else stated["tenant"].encode()
    return Registration(in_force_ms, tenant, keys, bool(stated["removed"]) and removable)


def _ms(time: datetime) -> float:
    return (time - EPOCH) / timedelta(milliseconds=1)
