"""The entries of ``access.findings`` by which the log key changes (docs/ledger.md, "Log keys").

Pure: entries go in, the keys that they name come out, and what a list of keys lacks or states otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..schemas.catalog import own_schemas
from ..schemas.codec import DecodeError, decode
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.framing import FramingError
from ..schemas.own_sources import OPERATOR
from .entry import epoch_of
from .key_list import read_block, write_block
from .keys import KeyFormatError, LogKey, LogKeys
from .source_keys import SignedRecord, SourceKeys

EVENT_TYPE = "key.changed"
SUBJECT = "log-key"
"""The subject of these events, and so their Kafka key."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One entry that names a key, and where it is. ``key`` has the first size of the entry's own log as well."""

    origin: str
    index: int
    key: LogKey

    def __str__(self) -> str:
        return f"{self.origin}#{self.index}"


def stated(key: LogKey, own_log: str) -> bytes:
    """Return how the event states a key: as in the list, without the log of the entry itself.

    That log changes its key behind the entry, whose index is not known before it is sealed.
    """
    sizes = {origin: size for origin, size in key.first_sizes.items() if origin != own_log}
    return write_block(replace(key, first_sizes=sizes)).encode()


def first_size_after(index: int) -> int:
    """Return the first size of the log of the entry itself: the old key signs the entry, the new one what follows."""
    return index + 2


def key_change(record: SignedRecord, origin: str, index: int, sources: SourceKeys) -> KeyChange | None:
    """Return what an entry of ``access.findings`` states; None if it is no change of the log key that counts.

    It counts if the operator signed it, it uses a released event schema, and its content is a key with first sizes.

    Args:
        sources: with every registration appended before the entry.
    """
    if record.value is None or record.key != SUBJECT.encode() or not sources.complete:
        return None
    try:
        datum = decode(record.value, own_schemas(), record.append_time_ms)
        if datum.get("event_type") != EVENT_TYPE or not sources.is_believed(record, datum, by=OPERATOR):
            return None
        key = read_block((datum.get("raw") or b"").decode())
        first_sizes = {**key.first_sizes, origin: first_size_after(index)}
        if len(first_sizes) == len(key.first_sizes):
            return None
        return KeyChange(origin, index, LogKey(key.public_key, first_sizes))
    except (DecodeError, FramingError, KeyFormatError, ValueError):
        return None


def missing_keys(keys: LogKeys, changes: Sequence[KeyChange]) -> Sequence[KeyChange]:
    """Return the changes to keys that the list does not have, behind the last change to a key that it has.

    A change that was begun and replaced by another one is not among them.
    """
    known = {key.public_key for key in keys.keys}
    missing: list[KeyChange] = []
    for change in in_order(changes):
        if change.key.public_key in known:
            missing.clear()
        else:
            missing.append(change)
    return missing


def in_order(changes: Iterable[KeyChange]) -> list[KeyChange]:
    """Return changes in the order of the log."""
    return sorted(changes, key=lambda change: (epoch_of(change.origin), change.index))


def unfounded(keys: LogKeys, number: int, changes: Iterable[KeyChange]) -> str:
    """Return why no entry names key ``number`` of the list, counted from 0, as the list has it; empty if one does."""
    key, before = keys.keys[number], keys.keys[number - 1].public_key
    named = [change for change in changes if change.key.public_key == key.public_key]
    if not named:
        return "no entry key.changed names it"
    equal = [change for change in named if change.key == key]
    if not equal:
        return f"{named[-1]} names it with other first sizes"
    if not any(keys.at(change.origin, change.index + 1) == before for change in equal):
        return f"{equal[-1]}, which names it, was not sealed under the key before it"
    return ""


def own_log_of(key: LogKey, deployment: str) -> tuple[str, int] | None:
    """Return the log in which a key of a list was announced, and the size up to which it holds the announcement."""
    for origin, size in key.first_sizes.items():
        if origin.startswith(f"{deployment}/{FINDINGS_TOPIC}/"):
            return origin, size - 1
    return None
