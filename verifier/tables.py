"""Reading the small tables of evidence in ClickHouse: ``origins`` as a whole, ``anchors`` page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from ..base.times import micros_of
from ..ledger.anchor import Anchor, anchor_origin
from ..schemas.evidence import ANCHORS_SCHEMA
from ..sinks.evidence import ARROW
from .chunks import wrong_type
from .report import VerifyReport
from .since import Since
from .steps import Problem

PAGE = 1000
"""Anchors read at a time."""


def read_rows(
    client: Client, table: str, schema: pa.Schema, rest: str, **parameters: object
) -> tuple[list[dict[str, Any]], str]:
    """Return rows of a table; none, and a message, if its columns have other types than the ledger's (step 1).

    Args:
        rest: the clauses after FROM.
    """
    sql = f"SELECT {', '.join(schema.names)} FROM {table} {rest}"  # noqa: S608 - our names
    stored = client.query_arrow(sql, parameters=parameters, settings=ARROW)
    if (column := wrong_type(stored, schema)) is not None:
        return [], f"column {column} of the table {table} has another type than the ledger's, or nulls"
    return stored.to_pylist(), ""


@dataclass(slots=True)
class AnchorRows:
    """The anchors that the table has when they are first read, in order. Rows of other types are reported then.

    Attributes:
        since: the first anchor to be read; None for the very first.
    """

    client: Client
    deployment: str
    report: VerifyReport | None
    since: Since | None = None
    _last: dict[bytes, int] = field(default_factory=dict)
    """The last index of each origin."""

    def __iter__(self) -> Iterator[Anchor]:
        report, self.report = self.report, None
        if report is not None:
            # Nothing else can be asked of columns that have other types.
            _, problem = read_rows(self.client, "anchors", ANCHORS_SCHEMA, "LIMIT 1")
            if not problem:
                sql = "SELECT origin, max(index) AS last FROM anchors GROUP BY origin"
                rows = self.client.query_arrow(sql, settings=ARROW).to_pylist()
                self._last = {row["origin"]: row["last"] for row in rows}
            self._add(report, problem)
        for origin in sorted(self._last, key=lambda origin: (len(origin), origin)):  # epoch 2 before 10
            name = text_of(origin)
            if self.since is None or not self.since.is_before(name, self._last[origin]):
                of_since = self.since is not None and name == self.since.anchors.origin
                yield from self._read(origin, self.since.index if self.since and of_since else 0, report)

    def _read(self, origin: bytes, first: int, report: VerifyReport | None) -> Iterator[Anchor]:
        read = 0  # of the rows with the index ``first``, so many are read: there may be several
        while True:
            rows, problem = read_rows(
                self.client,
                "anchors",
                ANCHORS_SCHEMA,
                "WHERE origin = unhex({origin:String}) AND index BETWEEN {first:UInt64} AND {last:UInt64} "
                "ORDER BY index, note LIMIT {page:UInt64} OFFSET {read:UInt64}",
                origin=origin.hex(), first=first, last=self._last[origin], page=PAGE, read=read,
            )  # fmt: skip
            self._add(report, problem)
            for row in rows:
                first, read = row["index"], read + 1 if row["index"] == first else 1
                yield _anchor_in(row)
            if len(rows) < PAGE:
                return

    def _add(self, report: VerifyReport | None, problem: str) -> None:
        if report is not None and problem:
            report.add(Problem(anchor_origin(self.deployment), None, "format", problem))


def _anchor_in(row: dict[str, Any]) -> Anchor:
    return Anchor(
        text_of(row["origin"]),
        row["index"],
        micros_of(row["time"]) // 1000,
        tuple(map(text_of, row["bodies"])),
        row["entry"],
        row["frontier"],
        text_of(row["note"]),
    )


def text_of(stored: bytes) -> str:
    """Return stored text; anyone who may write to the database may have stored other bytes."""
    return stored.decode("utf-8", "replace")
