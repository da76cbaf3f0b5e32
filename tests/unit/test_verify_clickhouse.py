"""What the verifier reads from ClickHouse was written by others: no value in it ends the verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from grantledger.schemas.evidence import ANCHORS_SCHEMA
from grantledger.verifier import tables
from grantledger.verifier.chunks import wrong_type
from grantledger.verifier.clickhouse_source import ClickHouseEvidence
from grantledger.verifier.report import VerifyReport


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


@dataclass
class AnchorTable:
    """Answers the queries of the table ``anchors``: origin and index of each row."""

    rows: list[tuple[bytes, int]]

    def query_arrow(self, sql: str, parameters: Mapping[str, Any] | None = None, **_: Any) -> pa.Table:
        if "GROUP BY" in sql:
            last = {origin: max(index for other, index in self.rows if other == origin) for origin, _ in self.rows}
            return pa.table(
                {"origin": pa.array(last.keys(), pa.binary()), "last": pa.array(last.values(), pa.uint64())}
            )
        found = sorted(self.rows)[:1]
        if parameters:
            origin, first, last = bytes.fromhex(parameters["origin"]), parameters["first"], parameters["last"]
            found = sorted((other, index) for other, index in self.rows if other == origin and first <= index <= last)
            found = found[parameters["read"] :][: parameters["page"]]
        times = pa.array([1_000] * len(found), pa.timestamp("ms", tz="UTC"))
        blob = pa.array([b"x"] * len(found), pa.binary())
        bodies = pa.array([[b"x"]] * len(found), pa.list_(pa.binary()))
        origins, indices = [origin for origin, _ in found], [index for _, index in found]
        columns = [pa.array(origins, pa.binary()), pa.array(indices, pa.uint64()), times, bodies, blob, blob, blob]
        return pa.table(dict(zip(ANCHORS_SCHEMA.names, columns, strict=True)))


@pytest.mark.parametrize("copies", [1, 2, 3, 7])
def test_anchors_are_read_page_by_page_and_twice_the_same(monkeypatch: pytest.MonkeyPatch, copies: int) -> None:
    """Several rows with one index may cross the end of a page, and fill whole pages."""
    monkeypatch.setattr(tables, "PAGE", 3)
    rows = [(b"d/anchors/0/10", 0), *((b"d/anchors/0/2", index) for index in (0, 1, *[2] * copies, 3, 4, 2**64 - 1))]
    rows.append((b"\xff", 5))
    database = AnchorTable(list(reversed(rows)))
    anchors = tables.AnchorRows(database, "d", VerifyReport("clickhouse", "d"))  # type: ignore[arg-type]
    first = [(anchor.origin, anchor.index) for anchor in anchors]
    assert first == [("\ufffd", 5), *((origin.decode(), index) for origin, index in (*rows[1:-1], rows[0]))]
    database.rows += [(b"d/anchors/0/10", 1), (b"d/anchors/0/11", 0)]  # stored meanwhile
    assert [(anchor.origin, anchor.index) for anchor in anchors] == first
