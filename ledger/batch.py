"""Sealed batches: the sealer writes one per Kafka record, and every reader of the ledger reads them.

Bytes: docs/ledger.md, "Sealed batch".
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from ..schemas.catalog import load
from ..schemas.framing import FramingError, prefix_of, single_object_prefix
from . import packing
from .entry import NO_HEADERS, Genesis, chain, payload_hashes
from .keys import Signer
from .merkle import Frontier
from .note import BatchFacts, Checkpoint, NoteError, open_sealed_checkpoint, sign_checkpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ENTRIES = 10_000
MAX_PAYLOAD_BYTES = 4 << 20


class BatchError(ValueError):
    """A sealed batch that cannot be read, or that contradicts itself or its log.

    Attributes:
        check: the failed check as one stable word, as in the verifier's report.
        index: the first entry concerned; None if it cannot be named.
    """

    def __init__(self, message: str, check: str = "batch", index: int | None = None) -> None:
        super().__init__(message)
        self.check, self.index = check, index


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log after some batch: all that is needed to append to it and to compute its root."""

    genesis: Genesis
    frontier: Frontier
    last_leaf: bytes
    next_offset: int

    @property
    def size(self) -> int:
        """Number of entries, which is the index of the next one."""
        return self.frontier.size

    @classmethod
    def at_genesis(cls, genesis: Genesis) -> Head:
        """Return the head of a log without entries."""
        return cls(genesis, Frontier(), genesis.hash(), genesis.first_offset)

    def checkpoint(self) -> Checkpoint:
        """Return the unsigned checkpoint."""
        return Checkpoint(self.genesis.origin, self.size, self.frontier.root())


@dataclass(slots=True)
class Records:
    """Kafka records of one partition in offset order, as columns. ``headers`` are encoded for the payload hash."""

    flags: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    append_times: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """One sealed batch. Columns stay packed until :meth:`records` unpacks them."""

    genesis: Genesis
    first_index: int
    count: int
    previous_leaf_hash: bytes
    flags: bytes
    offsets: bytes
    append_times: bytes
    key_lengths: bytes
    keys: bytes
    value_lengths: bytes
    values: bytes
    header_lengths: bytes
    headers: bytes
    payload_hashes: bytes
    leaf_hashes: bytes
    next_offset: int
    frontier: bytes
    sealed_at: datetime
    note: str

    @property
    def origin(self) -> str:
        """The log to which this batch belongs."""
        return self.genesis.origin

    @property
    def size(self) -> int:
        """Number of entries in the log after this batch."""
        return self.first_index + self.count

    @property
    def last_leaf(self) -> bytes:
        """The previous leaf hash of the next entry."""
        return self.leaf_hashes[-32:] or self.previous_leaf_hash

    def records(self) -> Records:
        """Unpack the entries.

        Raises:
            BatchError: lengths do not add up.
        """
        try:
            headers = packing.unpack_blobs(self.header_lengths, self.headers)
            if any(header is None or len(header) < len(NO_HEADERS) for header in headers):
                raise ValueError("an entry's headers have no count")
            return Records(
                list(self.flags),
                packing.unpack_u64(self.offsets),
                packing.unpack_i64(self.append_times),
                packing.unpack_blobs(self.key_lengths, self.keys),
                packing.unpack_blobs(self.value_lengths, self.values),
                [header or b"" for header in headers],
            )
        except ValueError as error:
            raise BatchError(f"batch of {self.origin} at index {self.first_index}: {error}") from error

    def head(self, public_key: bytes) -> Head:
        """Verify the note over this batch's head and return the head. The entries are not hashed here.

        Raises:
            BatchError: the key did not sign the note, or the note states another origin, size, root, last leaf, next
                offset or time of sealing.
        """
        where = f"batch of {self.origin} at index {self.first_index}"
        try:
            checkpoint, signed = open_sealed_checkpoint(self.note, public_key, self.first_index, self.last_leaf)
            frontier = Frontier.unpack(self.size, self.frontier)
        except (NoteError, ValueError) as error:
            raise BatchError(f"{where}: {error}", "checkpoint") from error
        head = Head(self.genesis, frontier, self.last_leaf, self.next_offset)
        if checkpoint != head.checkpoint():
            raise BatchError(f"{where}: the signed checkpoint is not the head of its frontier", "checkpoint")
        if signed.sealed_at != micros_of(self.sealed_at):
            raise BatchError(f"{where}: the time of sealing is not the signed one", "sealed_at")
        if signed.next_offset != self.next_offset:
            raise BatchError(f"{where}: the next offset is not the signed one", "sealed_at")
        return head


def micros_of(time: datetime) -> int:
    """Return microseconds since 1970 without rounding."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def seal(
    head: Head, records: Records, next_offset: int, sealed_at: datetime, signer: Signer
) -> tuple[SealedBatch, Head]:
    """Append records to a log and sign the new head. Without records, the batch restates the head.

    Args:
        next_offset: the input offset from which to read next; transaction markers may follow the last record.
    """
    payloads = payload_hashes(records.keys, records.values, records.headers)
    leaves = chain(head.last_leaf, records.flags, records.offsets, records.append_times, payloads)
    frontier = head.frontier.copy()
    frontier.extend(leaves)
    new = Head(head.genesis, frontier, leaves[-1] if leaves else head.last_leaf, next_offset)
    key_lengths, keys = packing.pack_blobs(records.keys)
    value_lengths, values = packing.pack_blobs(records.values)
    header_lengths, headers = packing.pack_blobs(records.headers)
    batch = SealedBatch(
        genesis=head.genesis,
        first_index=head.size,
        count=len(records),
        previous_leaf_hash=head.last_leaf,
        flags=bytes(records.flags),
        offsets=packing.pack_u64(records.offsets),
        append_times=packing.pack_i64(records.append_times),
        key_lengths=key_lengths,
        keys=keys,
        value_lengths=value_lengths,
        values=values,
        header_lengths=header_lengths,
        headers=headers,
        payload_hashes=b"".join(payloads),
        leaf_hashes=b"".join(leaves),
        next_offset=next_offset,
        frontier=frontier.pack(),
        sealed_at=sealed_at,
        note=sign_checkpoint(
            new.checkpoint(), signer, BatchFacts(micros_of(sealed_at), head.size, next_offset, new.last_leaf)
        ),
    )
    return batch, new


@cache
def _schema() -> tuple[bytes, Any]:
    definition = load("sealed_batch")
    return bytes(single_object_prefix(definition)), parse_schema(definition)


_FLAT = (
    "first_index", "count", "previous_leaf_hash", "flags", "offsets", "append_times", "key_lengths", "keys",
    "value_lengths", "values", "header_lengths", "headers", "payload_hashes", "leaf_hashes", "next_offset", "frontier",
    "note",
)  # fmt: skip
_COUNTERS = ("first_offset", "previous_size", "first_index", "count", "next_offset")
_WIDTHS = {
    "flags": 1, "offsets": 8, "append_times": 8, "key_lengths": 4, "value_lengths": 4, "header_lengths": 4,
    "payload_hashes": 32, "leaf_hashes": 32,
}  # fmt: skip


def encode(batch: SealedBatch) -> bytes:
    """Return a sealed batch as the value of one Kafka record, in single-object encoding."""
    prefix, schema = _schema()
    genesis = batch.genesis
    datum = {name: getattr(batch, name) for name in _FLAT} | {
        "origin": genesis.origin,
        "topic_id": genesis.topic_id,
        "first_offset": genesis.first_offset,
        "previous_size": genesis.previous_size,
        "previous_root": genesis.previous_root,
        "sealed_at": batch.sealed_at,
    }
    out = io.BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, schema, datum)
    return out.getvalue()


def decode(value: bytes) -> SealedBatch:
    """Read a sealed batch without checking hashes or signatures: :class:`log_verifier.LogVerifier` does that.

    Raises:
        BatchError: not a sealed batch, or a column does not have ``count`` members.
    """
    prefix, schema = _schema()
    try:
        found = prefix_of(value)
        if found != prefix:
            raise BatchError(f"not a sealed batch: schema id {found.hex()}, expected {prefix.hex()}")
        rest = io.BytesIO(value[len(prefix) :])
        datum: Any = fastavro.schemaless_reader(rest, schema, None)
        if extra := len(rest.read()):
            raise BatchError(f"not a readable sealed batch: {extra} bytes follow the datum")
        for name in _COUNTERS:
            if datum[name] < 0:
                raise BatchError(f"not a readable sealed batch: {name} is {datum[name]}")
        genesis = Genesis(
            datum["origin"], datum["topic_id"], datum["first_offset"], datum["previous_size"], datum["previous_root"]
        )
    except BatchError:
        raise
    except (FramingError, EOFError, IndexError, ValueError, OverflowError) as error:
        raise BatchError(f"not a readable sealed batch: {error}") from error
    for name, width in _WIDTHS.items():
        if len(datum[name]) != width * datum["count"]:
            raise BatchError(
                f"batch of {genesis.origin} at index {datum['first_index']}: column {name} has the wrong length"
            )
    return SealedBatch(
        genesis=genesis, sealed_at=datum["sealed_at"].astimezone(UTC), **{name: datum[name] for name in _FLAT}
    )


def leaf_at(batch: SealedBatch, index: int) -> bytes:
    """Return the leaf hash of an index inside the batch."""
    at = (index - batch.first_index) * 32
    if not 0 <= index - batch.first_index < batch.count:
        raise IndexError(f"index {index} is not in {batch.first_index} to {batch.size - 1}")
    return batch.leaf_hashes[at : at + 32]
