"""Entries: how one Kafka record becomes one leaf that names the leaf before it (docs/ledger.md).

All integers are big-endian. ``bytes(x)`` is a u32 length and x; null is FFFFFFFF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

HASH_SIZE = 32
NULL_LENGTH = b"\xff\xff\xff\xff"
NO_HEADERS = b"\x00\x00\x00\x00"
FLAG_LOG_APPEND_TIME = 1
"""Bit 0 of the flags: the record's time was set by the broker, not by the sender."""
MAX_ORIGIN_BYTES = 255

_u32 = struct.Struct(">I").pack
_leaf = struct.Struct(">5sB32sQq32s").pack


@dataclass(frozen=True, slots=True)
class Genesis:
    """What the first leaf of an origin binds.

    Attributes:
        origin: ``<deployment>/<topic>/<partition>/<epoch>``, at most 255 bytes of UTF-8.
        topic_id: the 16-byte Kafka topic id of the input topic.
        first_offset: the first offset of the input partition that this epoch covers.
        previous_size: entries of the previous epoch, 0 in epoch 0.
        previous_root: 32 bytes, the root of the previous epoch, zeros in epoch 0.
    """

    origin: str
    topic_id: bytes
    first_offset: int
    previous_size: int = 0
    previous_root: bytes = bytes(HASH_SIZE)

    def __post_init__(self) -> None:
        if not 0 < len(self.origin.encode()) <= MAX_ORIGIN_BYTES:
            raise ValueError(f"origin must be 1 to {MAX_ORIGIN_BYTES} bytes, is {len(self.origin.encode())}")
        if len(self.topic_id) != 16 or len(self.previous_root) != HASH_SIZE:
            raise ValueError("topic_id must be 16 bytes and previous_root 32")

    def hash(self) -> bytes:
        """Return the 32 bytes that stand as previous leaf hash in entry 0."""
        origin = self.origin.encode()
        return sha256(
            b"GLG1"
            + struct.pack(">H", len(origin))
            + origin
            + self.topic_id
            + struct.pack(">QQ", self.first_offset, self.previous_size)
            + self.previous_root
        ).digest()


def origin_of(deployment: str, topic: str, partition: int, epoch: int = 0) -> str:
    """Return the name of the log of one partition."""
    return f"{deployment}/{topic}/{partition}/{epoch}"


def encode_bytes(data: bytes | None) -> bytes:
    """Return ``bytes(x)``: u32 length and x; FFFFFFFF for null."""
    return NULL_LENGTH if data is None else _u32(len(data)) + data


def encode_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
    """Return a record's headers as the payload hash takes them: u32 count, then name and value of each, in order."""
    if not headers:
        return NO_HEADERS
    parts = [encode_bytes(name.encode()) + encode_bytes(value) for name, value in headers]
    return _u32(len(parts)) + b"".join(parts)


def payload_hash(key: bytes | None, value: bytes | None, headers: bytes = NO_HEADERS) -> bytes:
    """Return the 32-byte hash of what a record carried. ``headers`` is the output of :func:`encode_headers`."""
    return sha256(b"GLP1" + encode_bytes(key) + encode_bytes(value) + headers).digest()


def payload_hashes(
    keys: Sequence[bytes | None], values: Sequence[bytes | None], headers: Sequence[bytes]
) -> list[bytes]:
    """Return the payload hash of each of many records. One loop with nothing in it that is not needed: the hot path."""
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


def leaf_data(flags: int, previous: bytes, offset: int, append_time_ms: int, payload: bytes) -> bytes:
    """Return the 85 bytes of an entry, which the tree's leaf hashes with a leading zero byte (RFC 6962)."""
    return _leaf(b"\x00GLE1", flags, previous, offset, append_time_ms, payload)[1:]


def leaf_hash(data: bytes) -> bytes:
    """Return the RFC 6962 leaf hash of any leaf data."""
    return sha256(b"\x00" + data).digest()


def chain(
    previous: bytes,
    flags: Sequence[int],
    offsets: Sequence[int],
    append_times_ms: Sequence[int],
    payloads: Sequence[bytes],
) -> list[bytes]:
    """Return the leaf hash of each entry, each naming the one before it; ``previous`` stands before the first."""
    leaf, digest_of = _leaf, sha256
    leaves: list[bytes] = []
    append = leaves.append
    for flag, offset, time, payload in zip(flags, offsets, append_times_ms, payloads, strict=True):
        previous = digest_of(leaf(b"\x00GLE1", flag, previous, offset, time, payload)).digest()
        append(previous)
    return leaves
