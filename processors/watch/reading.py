"""Facts out of sealed batches of ``access.lifecycle``, decoded column by column like everything that is sealed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from ...ledger import columns
from ...ledger.batch import SealedBatch, micros_of
from ...schemas.arrow import decode_values
from ...schemas.catalog import SchemaCatalog
from .facts import Access, Decision, Fact, Source

_TEXTS = (
    "event_id", "event_type", "source_system", "source_instance", "tenant", "subject_id", "subject_email",
    "resource_kind", "resource_id", "resource_environment", "entitlement", "grant_id", "request_id", "session_id",
    "removal_evidence", "outcome", "subject_kind", "grant_id_kind", "expiry_source",
)  # fmt: skip
_TIMES = ("occurred_at", "starts_at", "expires_at")


def facts_of(batch: SealedBatch, catalog: SchemaCatalog) -> Iterator[Fact]:
    """Yield the facts of a batch of ``access.lifecycle``; an entry that cannot be decoded says nothing.

    The time of a record is the broker's; where its sender set it, no deadline may use it, and the time of sealing
    stands instead.

    Args:
        catalog: the writer schemas on record.

    Raises:
        BatchError: the columns of the batch do not fit together.
    """
    if not batch.count:
        return
    appended = columns.unpack_i64(batch.append_times)
    table = decode_values(pa.array(batch.records().values, pa.binary()), appended, catalog)
    texts = {name: [value.decode("utf-8", "replace") for value in table.column(name).to_pylist()] for name in _TEXTS}
    times = {name: table.column(name).cast(pa.int64()).to_pylist() for name in _TIMES}
    seqs, approvals = table.column("source_seq").to_pylist(), table.column("approvals").to_pylist()
    errors = table.column("decode_error").to_pylist()
    contents = _contents(table)
    sealed_at = micros_of(batch.sealed_at)
    for row in range(batch.count):
        if errors[row]:
            continue
        said = {name: texts[name][row] for name in _TEXTS}
        yield Fact(
            index=batch.first_index + row,
            append=appended[row] * 1000 if batch.flags[row] & 1 else sealed_at,
            occurred=times["occurred_at"][row],
            event_id=said["event_id"],
            event_type=_shared(said["event_type"]),
            source=_source(said["source_system"], said["source_instance"]),
            content=contents[row],
            seq=seqs[row],
            access=_access(
                said["tenant"], said["subject_id"], said["resource_kind"], said["resource_id"], said["entitlement"]
            ),
            environment=_shared(said["resource_environment"]),
            subject_kind=_shared(said["subject_kind"]),
            person=_person(said["subject_id"], said["subject_email"]),
            grant_id=said["grant_id"],
            grant_id_kind=_shared(said["grant_id_kind"]),
            request_id=said["request_id"],
            session_id=said["session_id"],
            decisions=_decisions(approvals[row]),
            starts=times["starts_at"][row],
            expires=times["expires_at"][row],
            native=said["expiry_source"] == "native",
            removal=_shared(said["removal_evidence"]) or "none",
            outcome=_shared(said["outcome"]),
        )


def _contents(table: pa.RecordBatch) -> list[bytes]:
    """Return a digest of each row: everything in the event but its salt. It holds within this process only."""
    flat = [
        [str(value) for value in column.to_pylist()] if pa.types.is_nested(column.type) else column.to_pylist()
        for column in (_plain(column) for column in table.columns)
    ]
    return [hash(row).to_bytes(8, "big", signed=True) for row in zip(*flat, strict=True)]


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


def _decisions(approvals: list[dict[str, Any]]) -> tuple[Decision, ...]:
    if not approvals:
        return ()
    return tuple(
        Decision(one["reviewer"].decode("utf-8", "replace"), one["decision"].decode(), one["forced"])
        for one in approvals
    )


# A million grants are held by few people, on few resources: each is one object.
_shared = lru_cache(maxsize=1 << 12)(str)
_source = lru_cache(maxsize=1 << 12)(Source)
_access = lru_cache(maxsize=1 << 17)(Access)


@lru_cache(maxsize=1 << 17)
def _person(subject: str, email: str) -> tuple[str, ...]:
    return (subject, email) if email and email != subject else (subject,)
