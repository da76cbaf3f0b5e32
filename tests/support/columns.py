"""Decoded columns in the form in which the second verifier computes them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from grantledger.schemas.arrow import DECODED_SCHEMA

APPROVAL = DECODED_SCHEMA.field("approvals").type.value_type


def comparable(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows like the second verifier: bytes, numbers, times in microseconds, and only the code of an error."""
    columns: dict[str, list[Any]] = {}
    for field in batch.schema:
        column = batch.column(field.name)
        if field.name == "approvals":  # Python has no dates beyond the year 9999
            items = [_numbers(column.values.field(number)) for number in range(len(APPROVAL))]
            column = pa.ListArray.from_arrays(
                column.offsets, pa.StructArray.from_arrays(items, [field.name for field in APPROVAL])
            )
        columns[field.name] = _numbers(column).to_pylist()
    columns["decode_error"] = [text.decode().partition(":")[0] for text in columns["decode_error"]]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _numbers(column: pa.Array) -> pa.Array:
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
