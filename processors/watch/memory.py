"""What the watch keeps between two starts, as bytes: facts in segments, and a manifest that says which segments count.

Facts may be added to a state in any order, so a segment is any set of them, and what is over is left out when segments
are written anew. Everything here can be had again from the sealed log; what cannot be read is thrown away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from ...schemas.arrow import DECODED_SCHEMA
from .reading import TABLE

SEGMENT_ROWS = 20_000
SEGMENT_BYTES = 4 << 20
"""Most that a segment holds: a record in Kafka, read and written as one."""
FORMAT = "2-" + hashlib.sha256(f"{TABLE} {DECODED_SCHEMA}".encode()).hexdigest()[:16]
"""Names what the bytes mean, digests of contents included. Of another format nothing is read."""
MANIFEST = "manifest"
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd")


class MemoryUnreadableError(ValueError):
    """What was kept is not what was written; the message says where."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far the log had been applied.

    Attributes:
        size: index of the first entry that had not been.
        next_offset: offset in ``access.lifecycle`` up to which everything had been.
        record: offset in the sealed topic of the record to go on with.
    """

    size: int = 0
    next_offset: int = 0
    record: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that counts: its key, where it lies in the topic, how many facts and bytes it holds."""

    key: str
    offset: int
    rows: int
    size: int

    @property
    def is_small(self) -> bool:
        """Whether it is worth joining with others: one of few facts may be as large as one may be."""
        return self.rows < SEGMENT_ROWS // 2 and self.size < SEGMENT_BYTES // 4


@dataclass(frozen=True, slots=True)
class Manifest:
    """What counts.

    Attributes:
        log: id of the sealed topic, in hex: of a topic made anew nothing is known.
        days: (day since 1970, index of its first entry), by the brokers' time.
        sources: what is known of each source (:mod:`.source_memory`).
        drafts: keys of segments that do not count: not yet, or never where a process ended meanwhile.
    """

    log: str
    place: Place = Place()
    days: tuple[tuple[int, int], ...] = ()
    sources: tuple[dict[str, Any], ...] = ()
    segments: tuple[Segment, ...] = ()
    drafts: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()


def manifest_of(value: bytes) -> Manifest | None:
    """Return a manifest, or None where it is of another format.

    Raises:
        MemoryUnreadableError: it is none.
    """
    try:
        read = json.loads(value)
        if read.pop("format") != FORMAT:
            return None
        return Manifest(
            log=read["log"],
            place=Place(**read["place"]),
            days=tuple((day, index) for day, index in read["days"]),
            sources=tuple(read["sources"]),
            segments=tuple(Segment(**one) for one in read["segments"]),
            drafts=tuple(read["drafts"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MemoryUnreadableError(f"the manifest of what the watch keeps: {error!r}") from error


def keys_in(value: bytes) -> tuple[str, ...]:
    """Return the keys of the segments that a manifest names, of whatever format it is, as far as it can be read."""
    try:
        read = json.loads(value)
        keys = [*(one["key"] for one in read["segments"]), *read["drafts"]]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(key for key in keys if isinstance(key, str))


def encode(facts: pa.RecordBatch) -> Iterator[tuple[int, bytes]]:
    """Yield segments that hold the facts, with how many: one, where they are not too large for that; none for none."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE, options=_WRITE) as writer:
        writer.write_batch(facts)
    rows, value = facts.num_rows, sink.getvalue().to_pybytes()
    if rows > 1 and len(value) > SEGMENT_BYTES:
        yield from encode(facts.slice(0, rows // 2))
        yield from encode(facts.slice(rows // 2))
    elif rows:
        yield rows, value


def decode(value: bytes) -> pa.RecordBatch:
    """Return the facts of a segment, as the rows of a ``TABLE``.

    Raises:
        MemoryUnreadableError: it is none.
    """
    try:
        return joined(pa.ipc.open_stream(value).read_all().cast(TABLE).to_batches())
    except (pa.ArrowException, OSError) as error:
        raise MemoryUnreadableError(f"a segment of what the watch keeps: {error}") from error


def joined(tables: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of several tables as one."""
    whole = pa.Table.from_batches(tables, TABLE).combine_chunks().to_batches()
    return whole[0] if whole else pa.RecordBatch.from_pylist([], TABLE)
