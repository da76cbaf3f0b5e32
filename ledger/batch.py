"""Sealed batches: the sealer writes one per Kafka record, and every reader of the ledger reads them.

Bytes: docs/ledger.md, "Sealed batch".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime

from ..base.times import micros_of
from . import packing, single_object
from .entry import NO_HEADERS, Genesis, chain, payload_hashes
from .keys import Signer
from .merkle import Frontier
from .note import BatchFacts, Checkpoint, NoteError, open_sealed_checkpoint, sign_checkpoint

MAX_ENTRIES = 10_000
MAX_PAYLOAD_BYTES = 4 << 20


class BatchError(ValueError):
    """A sealed batch that cannot be read, or that contradicts itself or its log.

    Attributes:
        check: the stable name of the failed check, as in the verifier's report.
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

    def __str__(self) -> str:
        return f"batch of {self.origin} at index {self.first_index}"

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
                packing.unpack(packing.U64, self.offsets),
                packing.unpack(packing.I64, self.append_times),
                packing.unpack_blobs(self.key_lengths, self.keys),
                packing.unpack_blobs(self.value_lengths, self.values),
                [header or b"" for header in headers],
            )
        except ValueError as error:
            raise BatchError(f"{self}: {error}") from error

    def times(self) -> list[int]:
        """Return the append times in microseconds since 1970. The sealing time replaces one that a sender set."""
        sealed_at = micros_of(self.sealed_at)
        appended = packing.unpack(packing.I64, self.append_times)
        return [time * 1000 if flags & 1 else sealed_at for flags, time in zip(self.flags, appended, strict=True)]

    def newest_append_time_ms(self) -> int:
        """Return the latest append time that the brokers set, 0 without one. A time that a sender set may be any."""
        appended = packing.unpack(packing.I64, self.append_times)
        if self.flags.count(1) < self.count:
            appended = [time for flags, time in zip(self.flags, appended, strict=True) if flags & 1]
        return max(appended, default=0)

    def verified_head(self, public_key: bytes) -> Head:
        """Verify the note over this batch's head and return the head. The entries are not hashed here.

        Raises:
            BatchError: the key did not sign exactly this head, extent and time of sealing.
        """
        try:
            checkpoint, signed = open_sealed_checkpoint(self.note, public_key, self.first_index, self.last_leaf)
            frontier = Frontier.unpack(self.size, self.frontier)
        except (NoteError, ValueError) as error:
            raise BatchError(f"{self}: {error}", "checkpoint") from error
        head = Head(self.genesis, frontier, self.last_leaf, self.next_offset)
        if checkpoint != head.checkpoint():
            raise BatchError(f"{self}: the signed checkpoint is not the head of its frontier", "checkpoint")
        if signed.sealed_at != micros_of(self.sealed_at):
            raise BatchError(f"{self}: the time of sealing is not the signed one", "sealed_at")
        if signed.next_offset != self.next_offset:
            raise BatchError(f"{self}: the next offset is not the signed one", "sealed_at")
        return head


_COLUMNS = tuple(field.name for field in fields(SealedBatch) if field.name != "genesis")
_WIDTHS = {
    "flags": 1, "offsets": 8, "append_times": 8, "key_lengths": 4, "value_lengths": 4, "header_lengths": 4,
    "payload_hashes": 32, "leaf_hashes": 32,
}  # fmt: skip
"""Bytes per entry of the columns that have one member per entry."""


def seal(
    head: Head, records: Records, next_offset: int, sealed_at: datetime, signer: Signer
) -> tuple[SealedBatch, Head]:
    """Append records to a log and sign the new head. Without records, the batch restates the head.

    Args:
        next_offset: the input offset from which to read next; transaction markers may follow the last record.
    """
    payloads = payload_hashes(records.keys, records.values, records.headers)
    leaves = chain(head.last_leaf, records.flags, records.offsets, records.append_times, payloads)
    joined = b"".join(leaves)
    frontier = head.frontier.copy()
    frontier.extend(joined)
    new = Head(head.genesis, frontier, leaves[-1] if leaves else head.last_leaf, next_offset)
    facts = BatchFacts(micros_of(sealed_at), head.size, next_offset, new.last_leaf)
    key_lengths, keys = packing.pack_blobs(records.keys)
    value_lengths, values = packing.pack_blobs(records.values)
    header_lengths, headers = packing.pack_blobs(records.headers)
    batch = SealedBatch(
        genesis=head.genesis,
        first_index=head.size,
        count=len(records),
        previous_leaf_hash=head.last_leaf,
        flags=bytes(records.flags),
        offsets=packing.pack(packing.U64, records.offsets),
        append_times=packing.pack(packing.I64, records.append_times),
        key_lengths=key_lengths,
        keys=keys,
        value_lengths=value_lengths,
        values=values,
        header_lengths=header_lengths,
        headers=headers,
        payload_hashes=b"".join(payloads),
        leaf_hashes=joined,
        next_offset=next_offset,
        frontier=frontier.pack(),
        sealed_at=sealed_at,
        note=sign_checkpoint(new.checkpoint(), signer, facts),
    )
    return batch, new


def encode(batch: SealedBatch) -> bytes:
    """Return a sealed batch as the value of one Kafka record, in single-object encoding."""
    datum = {name: getattr(batch, name) for name in _COLUMNS}
    return single_object.encode("sealed_batch", datum | asdict(batch.genesis))


def decode(value: bytes) -> SealedBatch:
    """Read a sealed batch without checking hashes or signatures: :class:`log_verifier.LogVerifier` does that.

    Raises:
        BatchError: not a sealed batch, or a column does not have ``count`` members.
    """
    try:
        datum = single_object.decode("sealed_batch", value)
        genesis = Genesis(**{field.name: datum.pop(field.name) for field in fields(Genesis)})
    except ValueError as error:
        raise BatchError(str(error)) from error
    for name, width in _WIDTHS.items():
        if len(datum[name]) != width * datum["count"]:
            raise BatchError(
                f"batch of {genesis.origin} at index {datum['first_index']}: column {name} has the wrong length"
            )
    return SealedBatch(genesis=genesis, **datum)


def leaf_at(batch: SealedBatch, index: int) -> bytes:
    """Return the leaf hash of an index inside the batch."""
    at = (index - batch.first_index) * 32
    if not 0 <= index - batch.first_index < batch.count:
        raise IndexError(f"index {index} is not in {batch.first_index} to {batch.size - 1}")
    return batch.leaf_hashes[at : at + 32]
