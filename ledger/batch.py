"""Sealed batches: what the sealer writes, one Kafka record each, and everything that reads the ledger reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from ..schemas.catalog import load
from ..schemas.framing import FramingError, prefix_of, single_object_prefix
from . import columns
from .entry import NO_HEADERS, Genesis, chain, payload_hashes
from .keys import Signer
from .merkle import Frontier
from .note import BatchFacts, Checkpoint, NoteError, open_sealed_checkpoint, sign_checkpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ENTRIES = 10_000
MAX_PAYLOAD_BYTES = 4 << 20


class BatchError(ValueError):
    """A sealed batch that cannot be read, or does not agree with itself or with its log."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log stands: everything needed to append to it and to say its root."""

    genesis: Genesis
    frontier: Frontier
    last_leaf: bytes
    next_offset: int

    @property
    def size(self) -> int:
        """Entries so far, which is the index of the next one."""
        return self.frontier.size

    @classmethod
    def at_genesis(cls, genesis: Genesis) -> Head:
        """Return the head of a log without entries."""
        return cls(genesis, Frontier(), genesis.hash(), genesis.first_offset)

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint, not yet signed."""
        return Checkpoint(self.genesis.origin, self.size, self.frontier.root())


@dataclass(slots=True)
class Records:
    """Kafka records of one partition in offset order, in columns. ``headers`` as :func:`entry.encode_headers` gives."""

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
    """One sealed batch. Columns stay packed until somebody asks."""

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
        """The log that this batch belongs to."""
        return self.genesis.origin

    @property
    def size(self) -> int:
        """Entries in the log after this batch."""
        return self.first_index + self.count

    @property
    def last_leaf(self) -> bytes:
        """The leaf hash that the next entry names."""
        return self.leaf_hashes[-32:] or self.previous_leaf_hash

    def records(self) -> Records:
        """Return the entries as lists.

        Raises:
            BatchError: lengths do not add up.
        """
        try:
            headers = columns.unpack_blobs(self.header_lengths, self.headers)
            if any(header is None or len(header) < len(NO_HEADERS) for header in headers):
                raise ValueError("an entry's headers have no count")
            return Records(
                list(self.flags),
                columns.unpack_u64(self.offsets),
                columns.unpack_i64(self.append_times),
                columns.unpack_blobs(self.key_lengths, self.keys),
                columns.unpack_blobs(self.value_lengths, self.values),
                [header or b"" for header in headers],
            )
        except ValueError as error:
            raise BatchError(f"batch of {self.origin} at index {self.first_index}: {error}") from error

    def head(self, public_key: bytes) -> Head:
        """Verify this batch's note and root and return where the log stands after it.

        Raises:
            BatchError: the note is not ours, names another origin or size, or its root is not the frontier's.
        """
        where = f"batch of {self.origin} at index {self.first_index}"
        try:
            checkpoint, signed = open_sealed_checkpoint(self.note, public_key, self.first_index, self.last_leaf)
            frontier = Frontier.unpack(self.size, self.frontier)
        except (NoteError, ValueError) as error:
            raise BatchError(f"{where}: {error}") from error
        head = Head(self.genesis, frontier, self.last_leaf, self.next_offset)
        if checkpoint != head.checkpoint():
            raise BatchError(f"{where}: its signed checkpoint is not the head that its frontier gives")
        if signed.sealed_at != micros_of(self.sealed_at):
            raise BatchError(f"{where}: its time of sealing is not the one that is signed")
        if signed.next_offset != self.next_offset:
            raise BatchError(f"{where}: its next offset is not the one that is signed")
        return head


def micros_of(time: datetime) -> int:
    """Return microseconds since 1970, exactly."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def seal(
    head: Head, records: Records, next_offset: int, sealed_at: datetime, signer: Signer
) -> tuple[SealedBatch, Head]:
    """Append records to a log and sign the new head; an empty ``records`` restates it.

    Args:
        next_offset: the input offset at which reading goes on; beyond the last record where markers follow it.
    """
    payloads = payload_hashes(records.keys, records.values, records.headers)
    leaves = chain(head.last_leaf, records.flags, records.offsets, records.append_times, payloads)
    frontier = head.frontier.copy()
    frontier.extend(leaves)
    new = Head(head.genesis, frontier, leaves[-1] if leaves else head.last_leaf, next_offset)
    key_lengths, keys = columns.pack_blobs(records.keys)
    value_lengths, values = columns.pack_blobs(records.values)
    header_lengths, headers = columns.pack_blobs(records.headers)
    batch = SealedBatch(
        genesis=head.genesis,
        first_index=head.size,
        count=len(records),
        previous_leaf_hash=head.last_leaf,
        flags=bytes(records.flags),
        offsets=columns.pack_u64(records.offsets),
        append_times=columns.pack_i64(records.append_times),
        key_lengths=key_lengths,
        keys=keys,
        value_lengths=value_lengths,
        values=values,
        header_lengths=header_lengths,
        headers=headers,
        payload_hashes=columns.pack_hashes(payloads),
        leaf_hashes=columns.pack_hashes(leaves),
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
    """Read a sealed batch. Its hashes and signature are not checked here: see :meth:`SealedBatch.head` and ``verify``.

    Raises:
        BatchError: not a sealed batch, or its columns do not all have ``count`` entries.
    """
    prefix, schema = _schema()
    try:
        found = prefix_of(value)
        if found != prefix:
            raise BatchError(f"not a sealed batch: schema id {found.hex()}, expected {prefix.hex()}")
        rest = io.BytesIO(value[len(prefix) :])
        datum: Any = fastavro.schemaless_reader(rest, schema, None)
        if extra := len(rest.read()):
            raise BatchError(f"not a readable sealed batch: {extra} bytes follow it")
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


def payload_bytes(records: Records) -> int:
    """Return how many bytes of keys, values and headers the records hold together."""
    return sum(len(blob) for column in _blob_columns(records) for blob in column if blob is not None)


def _blob_columns(records: Records) -> tuple[Sequence[bytes | None], ...]:
    return records.keys, records.values, records.headers
