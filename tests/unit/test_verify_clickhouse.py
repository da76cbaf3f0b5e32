"""What the verifier reads from ClickHouse was written by others: no value in it ends the verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from grantledger.verifier.chunks import wrong_type
from grantledger.verifier.clickhouse_source import ClickHouseEvidence


@dataclass
class Answer:
    result_rows: list[tuple[Any, ...]]


@dataclass
class Database:
    """Answers every query with the same rows."""

    rows: list[tuple[Any, ...]]

    def query(self, sql: str, **_: Any) -> Answer:
        return Answer(self.rows)


def test_subjects_of_erasures_may_be_nonsense() -> None:
    subjects = ["d/t/0/0#7", "d/t/0/0#²", "d/t/0/0#٣", "d/t/0/0#", "#5", "d/t/0/0#" + "9" * 5000, "d/t/0/0#-1", "x"]
    evidence = ClickHouseEvidence(Database([(subject,) for subject in subjects]), "d")  # type: ignore[arg-type]
    assert evidence._erasures() == {"d/t/0/0": frozenset({7})}


SCHEMA = pa.schema([("hash", pa.binary(32)), ("note", pa.string()), ("bodies", pa.list_(pa.string()))])
BODIES = pa.array([[b"x"]], pa.list_(pa.field("item", pa.binary(), nullable=False)))


@pytest.mark.parametrize(
    ("columns", "wrong"),
    [
        ({}, None),
        ({"hash": pa.array([b"x"])}, "hash"),
        ({"hash": pa.array([None], pa.binary(32))}, "hash"),
        ({"note": pa.array([1])}, "note"),
        ({"bodies": pa.array([[None]], pa.list_(pa.binary()))}, "bodies"),
    ],
)
def test_a_column_of_another_type_is_found(columns: dict[str, pa.Array], wrong: str | None) -> None:
    right = {"hash": pa.array([bytes(32)], pa.binary(32)), "note": pa.array([b""]), "bodies": BODIES}
    assert wrong_type(pa.table(right | columns), SCHEMA) == wrong
    assert wrong_type(pa.table(right | {"hash": pa.array([None], pa.binary(32))}), SCHEMA, ("hash",)) is None
