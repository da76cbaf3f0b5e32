"""Small ledgers in memory: generated records in batches of any size, as sealed batches or as stored rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import strategies as st

from grantledger.base.times import micros_of
from grantledger.ledger.batch import Head, Records, SealedBatch, seal
from grantledger.ledger.entry import Genesis, encode_headers
from grantledger.ledger.packing import unpack_hashes
from grantledger.schemas.evidence import EVIDENCE_SCHEMA

from .worked_example import GENESIS, SIGNER

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Entry = tuple[int, int, int, bytes | None, bytes | None, bytes]
"""flags, offset, append time, key, value, encoded headers."""

_blobs = st.none() | st.binary(max_size=12)
_headers = st.lists(st.tuples(st.text("ab-é", max_size=3), _blobs), max_size=3).map(encode_headers)
_contents = st.tuples(
    st.sampled_from([0, 1]), st.integers(1, 3), st.integers(-(2**63), 2**63 - 1), _blobs, _blobs, _headers
)


@st.composite
def entries(draw: st.DrawFn, min_size: int = 0, max_size: int = 20) -> list[Entry]:
    """Entries in offset order, with gaps."""
    made = []
    offset = GENESIS.first_offset
    for flags, gap, time, key, value, headers in draw(st.lists(_contents, min_size=min_size, max_size=max_size)):
        offset += gap
        made.append((flags, offset, time, key, value, headers))
    return made


def records_of(found: Sequence[Entry]) -> Records:
    """Return the columns of entries."""
    columns: list[list[object]] = [list(column) for column in zip(*found, strict=True)] or [[] for _ in range(6)]
    return Records(*columns)  # type: ignore[arg-type]


def seal_parts(parts: Sequence[Sequence[Entry]], genesis: Genesis = GENESIS) -> tuple[list[SealedBatch], Head]:
    """Seal each part as one batch, one second after the one before."""
    head = Head.at_genesis(genesis)
    batches = []
    for number, part in enumerate(parts):
        next_offset = part[-1][1] + 1 if part else head.next_offset
        batch, head = seal(
            head, records_of(part), next_offset, START + timedelta(seconds=number, microseconds=1), SIGNER
        )
        batches.append(batch)
    return batches, head


def cut(found: Sequence[Entry], sizes: Sequence[int]) -> list[Sequence[Entry]]:
    """Cut entries into parts of these sizes, repeated as long as needed. 0 is an empty part."""
    parts = []
    at, turn = 0, 0
    while at < len(found):
        size = sizes[turn % len(sizes)] if turn < 4 * len(sizes) else len(found)
        parts.append(found[at : at + size])
        at, turn = at + size, turn + 1
    return parts


@dataclass
class Rows:
    """The stored rows of one log, one list per column, so that a test can change a single cell."""

    index: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    append_time: list[int] = field(default_factory=list)
    key: list[bytes | None] = field(default_factory=list)
    value: list[bytes | None] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    payload_hash: list[bytes] = field(default_factory=list)
    previous_leaf_hash: list[bytes] = field(default_factory=list)
    leaf_hash: list[bytes] = field(default_factory=list)
    sealed_at: list[int] = field(default_factory=list)
    note: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, batches: Sequence[SealedBatch]) -> Rows:
        rows = cls()
        for batch in batches:
            records = batch.records()
            leaves = unpack_hashes(batch.leaf_hashes)
            rows.index += range(batch.first_index, batch.size)
            rows.flags += records.flags
            rows.offset += records.offsets
            rows.append_time += records.append_times
            rows.key += records.keys
            rows.value += records.values
            rows.headers += records.headers
            rows.payload_hash += unpack_hashes(batch.payload_hashes)
            rows.previous_leaf_hash += [batch.previous_leaf_hash, *leaves][: batch.count]
            rows.leaf_hash += leaves
            rows.sealed_at += [micros_of(batch.sealed_at)] * batch.count
            rows.note += [""] * (batch.count - 1) + [batch.note] if batch.count else []
        return rows

    def columns(self) -> dict[str, list[object]]:
        return self.__dict__

    def __len__(self) -> int:
        return len(self.index)

    def in_order(self) -> Rows:
        """Return the rows in the order of ``ORDER BY index``."""
        places = sorted(range(len(self)), key=self.index.__getitem__)
        return Rows(**{name: [column[at] for at in places] for name, column in self.columns().items()})  # type: ignore[arg-type]

    def table(self, first: int, count: int, erased: frozenset[int] = frozenset()) -> pa.Table:
        """Return rows [first, first + count) by their place in the table, as the store returns them.

        Args:
            erased: indices of the rows to mark as erased.
        """
        part = {name: column[first : first + count] for name, column in self.columns().items()}
        part["note"] = [note.encode() for note in part["note"]]  # type: ignore[attr-defined]
        part["erased_at"] = [0 if index in erased else None for index in part["index"]]
        types = {field.name: pa.binary() if field.type == pa.string() else field.type for field in EVIDENCE_SCHEMA}
        return pa.table({name: pa.array(column, types[name]) for name, column in part.items()})
