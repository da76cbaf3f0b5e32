"""A log that is read in many small parts: most of them lack the decoded columns that were empty before."""

from __future__ import annotations

import pytest

from grantledger.schemas.arrow import DECODED_SCHEMA
from support.tamper import other_value
from support.tampered_ledger import LIFECYCLE, Ledger, problems, row, with_copy, without

ROWS = (9, 1 << 20)
"""Few rows at a time."""
BYTES = (1 << 16, 1)
"""All rows at a time, but the engine stops after each block: a batch of the log."""


@pytest.mark.parametrize("read", [ROWS, BYTES, (1, 1)])
def test_the_untouched_ledger_is_the_same_in_parts(ledger: Ledger, read: tuple[int, int]) -> None:
    whole, parts = ledger.store.verify(), ledger.store.verify(read=read)
    del whole["seconds"], parts["seconds"]
    assert parts == whole


def test_every_decoded_column_is_compared_in_every_part(ledger: Ledger) -> None:
    types, columns = ledger.types["entries"], [*DECODED_SCHEMA.names, "signature"]
    changes = [(column, other_value(types[column], column), "columns") for column in columns]
    for column, _, message in ledger.changed_in_each_log(ledger.events, changes, ROWS):
        assert message == f"column {column} is not what the sealed payload contains"


@pytest.mark.parametrize("read", [ROWS, BYTES])
def test_a_row_is_missing_or_there_twice(ledger: Ledger, read: tuple[int, int]) -> None:
    first, last = ledger.full
    for index in (0, first + 1, last):
        missing, double = without(row(index)), with_copy(row(index))
        assert problems(ledger.store.verify(missing, read=read)) == [(LIFECYCLE, index, "index")]
        assert problems(ledger.store.verify(double, read=read)) == [(LIFECYCLE, index, "index")]
