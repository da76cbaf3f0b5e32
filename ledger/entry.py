"""Entries: how one Kafka record becomes one leaf that contains the leaf hash before it (docs/ledger.md, "Entries")."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import lt

HASH_SIZE = 32
NULL_LENGTH = b"\xff\xff\xff\xff"
NO_HEADERS = b"\x00\x00\x00\x00"
FLAG_LOG_APPEND_TIME = 1
"""Bit 0 of the flags: the broker set the record's time, not the sender."""
MAX_ORIGIN_BYTES = 255
_ENTRY_NAME = re.compile(r"(.+)#(0|[1-9][0-9]{0,19})")
_ORIGIN = re.compile(r"([^/\s+]+/[^/\s+]+/(?:0|[1-9][0-9]*))/(0|[1-9][0-9]*)")

_u32 = struct.Struct(">I").pack
_leaf = struct.Struct(">5sB32sQq32s").pack


class EntryError(ValueError):
    """An entry is not the sealed one. ``position`` counts from 0; ``check`` is ``payload``, ``leaf`` or ``offset``."""

    def __init__(self, position: int, check: str, message: str) -> None:
        super().__init__(message)
        self.position, self.check = position, check


@dataclass(frozen=True, slots=True)
class Genesis:
    """The inputs of a log's genesis hash, which stands as previous leaf hash in entry 0.

    Attributes:
        origin: ``<deployment>/<topic>/<partition>/<epoch>``, at most 255 bytes of UTF-8.
        topic_id: 16-byte Kafka topic id of the input topic.
        first_offset: first offset of the input partition that this epoch covers.
        previous_size, previous_root: head of the previous epoch; zeros in epoch 0.
    """

    origin: str
    topic_id: bytes
    first_offset: int
    previous_size: int = 0
    previous_root: bytes = bytes(HASH_SIZE)

    def __post_init__(self) -> None:
        if not 0 < len(self.origin.encode()) <= MAX_ORIGIN_BYTES:
            raise ValueError(f"origin must be 1 to {MAX_ORIGIN_BYTES} bytes, is {len(self.origin.encode())}")
        split_origin(self.origin)
        if len(self.topic_id) != 16 or len(self.previous_root) != HASH_SIZE:
            raise ValueError("topic_id must be 16 bytes and previous_root 32")

    def hash(self) -> bytes:
        """Return the 32-byte genesis hash."""
        origin = self.origin.encode()
        rest = (self.topic_id, self.first_offset, self.previous_size, self.previous_root)
        return sha256(struct.pack(f">4sH{len(origin)}s16sQQ32s", b"GLG1", len(origin), origin, *rest)).digest()


def origin_of(deployment: str, topic: str, partition: int, epoch: int = 0) -> str:
    """Return the origin, the name of one partition's log."""
    return f"{deployment}/{topic}/{partition}/{epoch}"


def partition_of_origin(origin: str) -> int:
    """Return the partition in an origin."""
    return int(split_origin(origin)[0].split("/")[-1])


def split_origin(origin: str) -> tuple[str, int]:
    """Return an origin without its epoch, and the epoch.

    Raises:
        ValueError: not ``<deployment>/<topic>/<partition>/<epoch>`` with plain decimal numbers.
    """
    if (parts := _ORIGIN.fullmatch(origin)) is None:
        raise ValueError(f"origin {origin!r} is not <deployment>/<topic>/<partition>/<epoch>")
    return parts[1], int(parts[2])


def epoch_of(origin: str) -> int:
    """Return the epoch in an origin."""
    return split_origin(origin)[1]


def topic_of_origin(origin: str) -> str:
    """Return the input topic in an origin."""
    return split_origin(origin)[0].split("/")[-2]


def split_entry_name(name: str) -> tuple[str, int]:
    """Return origin and index of an entry that is named ``<origin>#<index>``, as a ``payload.erased`` names it.

    Raises:
        ValueError: not an origin and a plain decimal number below 2**64.
    """
    parts = _ENTRY_NAME.fullmatch(name)
    if parts is None or int(parts[2]) >= 1 << 64:
        raise ValueError(f"{name!r} is not <origin>#<index>")
    split_origin(parts[1])
    return parts[1], int(parts[2])


def encode_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
    """Encode a record's headers for the payload hash: u32 count, then name and value of each, in record order."""
    if not headers:
        return NO_HEADERS
    parts = [with_length(name.encode()) + with_length(value) for name, value in headers]
    return _u32(len(parts)) + b"".join(parts)


def with_length(data: bytes | None) -> bytes:
    """Return ``bytes(x)`` of docs/ledger.md: u32 length, then the data; FFFFFFFF for null."""
    return NULL_LENGTH if data is None else _u32(len(data)) + data


def payload_hashes(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[bytes]
) -> list[bytes]:
    """Return the payload hash of each of many records. This is the hot path: one loop, inlined by hand."""
    u32, digest_of = _u32, sha256
    return [
        digest_of(
            b"GLP1"
            + (NULL_LENGTH if key is None else u32(len(key)) + key)
            + (NULL_LENGTH if value is None else u32(len(value)) + value)
            + header
        ).digest()
        for key, value, header in zip(keys, values, headers, strict=True)
    ]


def leaf_hash(data: bytes) -> bytes:
    """Return the RFC 6962 section 2.1 leaf hash of any leaf data."""
    return sha256(b"\x00" + data).digest()


def chain(
    previous: bytes,
    flags: Sequence[int],
    offsets: Sequence[int],
    append_times_ms: Sequence[int],
    payloads: Sequence[bytes],
) -> list[bytes]:
    """Return the leaf hash of each entry. Each leaf contains the one before it, the first one ``previous``."""
    leaf, digest_of = _leaf, sha256
    leaves: list[bytes] = []
    append = leaves.append
    for flag, offset, time, payload in zip(flags, offsets, append_times_ms, payloads, strict=True):
        previous = digest_of(leaf(b"\x00GLE1", flag, previous, offset, time, payload)).digest()
        append(previous)
    return leaves


def first_difference(computed: bytes, stored: bytes) -> int:
    """Return the position of the first of two runs of joined 32-byte hashes that differs."""
    for at in range(0, len(computed), HASH_SIZE):
        if computed[at : at + HASH_SIZE] != stored[at : at + HASH_SIZE]:
            return at // HASH_SIZE
    return len(computed) // HASH_SIZE


def check_payloads(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[bytes],
    stored: Sequence[bytes],
    erased: frozenset[int] = frozenset(),
) -> None:
    """Compare records with their payload hashes, except at the positions of erased payloads.

    Raises:
        EntryError: the first one that differs.
    """
    compare_payloads(payload_hashes(keys, values, headers), stored, erased)


def check_leaves(
    previous: bytes,
    flags: Sequence[int],
    offsets: Sequence[int],
    append_times_ms: Sequence[int],
    payloads: Sequence[bytes],
    *,
    stored: bytes,
) -> None:
    """Recompute leaf hashes and compare them with the ``stored`` ones, joined.

    Raises:
        EntryError: the first one that differs, or whose offset is not greater than the one before.
    """
    compare_leaves(b"".join(chain(previous, flags, offsets, append_times_ms, payloads)), stored)
    if not all(map(lt, offsets, offsets[1:])):
        raise offset_error(next(at for at in range(1, len(offsets)) if offsets[at] <= offsets[at - 1]))


def compare_payloads(computed: Sequence[bytes], stored: Sequence[bytes], erased: frozenset[int]) -> None:
    """Raise EntryError for the first payload hash that differs, except at the positions of erased payloads."""
    if computed != stored:
        for position, (one, other) in enumerate(zip(computed, stored, strict=True)):
            if one != other and position not in erased:
                raise EntryError(position, "payload", "key, value or headers are not the sealed ones")


def compare_leaves(computed: bytes, stored: bytes) -> None:
    """Raise EntryError for the first of joined leaf hashes that differs."""
    if computed != stored:
        message = "offset, time, flags, payload hash or leaf hash are not the sealed ones"
        raise EntryError(first_difference(computed, stored), "leaf", message)


def offset_error(position: int) -> EntryError:
    """Return the error for an offset that is not greater than the one before."""
    return EntryError(position, "offset", "the offset is not greater than the one before")
