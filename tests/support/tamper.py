"""A stored ledger that an attacker with all rights on the database may change.

A process can open only one embedded store, so the store has its own process: this file, run as a script on a copy of a
store's folder. A change is one query per changed table, over the original tables. After the verification, the original
tables are back, and the next change starts from them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TABLES = ("entries", "origins", "anchors")
"""The evidence. ``receipts`` and ``migrations`` are not: the first can be requested again, the second is about the
software."""


class TamperedStore:
    """The tests' handle on the store: query rows, change tables, verify.

    Args:
        folder: a store's folder, which the tests change: pass a copy.
    """

    def __init__(self, folder: Path, deployment: str, public_key: bytes, anchor_file: Path | None) -> None:
        self._deployment, self._public_key, self._anchor_file = deployment, public_key, anchor_file
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"the store's process ended with {self._process.wait()}")
        parsed = json.loads(answer)
        if "error" in parsed:
            raise AssertionError(parsed["error"])
        return parsed["answer"]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query; select bytes as ``hex(…)``."""
        found: list[dict[str, Any]] = self._ask(sql=sql)
        return found

    def verify(
        self,
        changed: Mapping[str, str] | None = None,
        *,
        public_key: bytes | None = None,
        anchor_file: Path | str | None = "",
        read: tuple[int, int] | None = None,
        since: bool = False,
    ) -> dict[str, Any]:
        """Return the verifier's report on the store with some tables changed.

        Args:
            changed: by table, the query for the table's new rows.
            public_key: instead of the one of the logs.
            anchor_file: instead of the default one; None for none.
            read: most rows and bytes that are read at a time, instead of the verifier's own.
            since: go on where the last sound verification without this ended.
        """
        file = self._anchor_file if anchor_file == "" else anchor_file
        report: dict[str, Any] = self._ask(
            verify=self._deployment,
            changed=dict(changed or {}),
            key=(public_key or self._public_key).hex(),
            anchors=None if file is None else str(file),
            read=read,
            since=since,
        )
        return report


def copied(folder: Path, to: Path) -> Path:
    """Copy a data folder that no process has open."""
    shutil.copytree(folder, to, symlinks=True)
    return to


def replaced(table: str, where: str, **values: str) -> str:
    """Return the query for a table in which some rows have other values (SQL expressions)."""
    return replaced_each(table, [(name, where, value) for name, value in values.items()])


def replaced_each(table: str, changes: Iterable[tuple[str, str, str]]) -> str:
    """Return the same query where each change has its own rows: column, condition and value of each change."""
    new: dict[str, str] = {}
    for name, where, value in changes:
        new[name] = f"if({where}, {value}, {new.get(name, f'`{name}`')})"
    return f"SELECT * REPLACE ({', '.join(f'{value} AS `{name}`' for name, value in new.items())}) FROM {table}"


def other_value(type_: str, name: str) -> str:
    """Return an expression for another value of this type that differs as little as possible."""
    column = f"`{name}`"
    if type_.startswith("LowCardinality("):
        column, type_ = f"toString({column})", type_.removeprefix("LowCardinality(").removesuffix(")")
    if type_.startswith("Nullable("):
        inner = type_.removeprefix("Nullable(").removesuffix(")")
        return f"ifNull({other_value(inner, name)}, {_instead_of_null(inner)})"
    if type_.startswith("FixedString("):
        size = int(type_.removeprefix("FixedString(").removesuffix(")"))
        return f"toFixedString({_last_byte_flipped(f'substring({column}, 1, {size})')}, {size})"
    if type_ == "String":
        return f"if({column} = '', 'x', {_last_byte_flipped(column)})"
    if type_.startswith("DateTime64(3"):
        return f"addMilliseconds({column}, 1)"
    if type_.startswith("DateTime64(6"):
        return f"addMicroseconds({column}, 1)"
    if type_ == "Bool":
        return f"NOT {column}"
    if type_.startswith(("UInt", "Int")):
        return f"{column} + 1"
    if type_ == "Array(String)":
        return f"arrayPushBack({column}, 'x')"
    if type_.startswith("Array(Tuple("):
        return f"arrayPushBack({column}, ('x', 'x', 'x', NULL, 'x', true))"
    raise AssertionError(f"no rule for changing a value of type {type_}")


def _instead_of_null(type_: str) -> str:
    return "''" if type_ == "String" else f"CAST(1, '{type_.replace(chr(39), chr(92) + chr(39))}')"


def _last_byte_flipped(text: str) -> str:
    return (
        f"concat(substring({text}, 1, length({text}) - 1), char(bitXor(reinterpretAsUInt8(substring({text}, -1)), 1)))"
    )


class _Answers:
    """The engine's answers to queries of earlier verifications, valid while the tables that they read are unchanged.

    A verification of a small ledger spends nearly all of its time on the engine's fixed cost per query, and a change to
    one table leaves the queries of the others as they were.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def of(self, changed: Collection[str], key: tuple[object, ...], sql: str, ask: Callable[[], Any]) -> Any:
        """Return the answer to a query; ask the engine if the query reads a changed table or is new.

        Args:
            key: everything on which the answer depends, beyond the rows.
        """
        if not set(re.findall(r"\bFROM ([\w.]+)", sql)).isdisjoint(changed):
            return ask()
        if key not in self._known:
            self._known[key] = ask()
        return self._known[key]


class _Client:
    """The engine's client with settings as part of each query.

    The driver applies settings to the embedded engine with seven more statements per query, which took most of the time
    of a verification of a small ledger.

    Args:
        changed: the tables that are not the original ones.
    """

    def __init__(self, client: Any, answers: _Answers, changed: Collection[str]) -> None:
        self._client, self._answers, self._changed = client, answers, changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def query(self, sql: str, **arguments: Any) -> Any:
        key = ("rows", sql, repr(arguments))
        return self._answers.of(self._changed, key, sql, lambda: self._client.query(sql, **arguments))

    def raw_query(self, sql: str, *, settings: Mapping[str, Any], fmt: str, **arguments: Any) -> bytes:
        select, into, file = sql.partition(" INTO OUTFILE ")
        clause = ", ".join(f"{name} = {value!r}" for name, value in settings.items())
        path = Path(file.strip("'"))

        def ask() -> bytes:
            answer = self._client.raw_query(f"{select} SETTINGS {clause}{into}{file}", fmt=fmt, **arguments)
            return path.read_bytes() if into else answer

        answer: bytes = self._answers.of(self._changed, (fmt, select, clause, repr(arguments)), select, ask)
        if into:
            path.write_bytes(answer)
        return answer

    def query_arrow(self, sql: str, **arguments: Any) -> Any:
        import pyarrow as pa

        return pa.ipc.open_stream(self.raw_query(sql, fmt="ArrowStream", **arguments)).read_all()


class _Engine:
    """The server side, in the process that has the store open."""

    SETTINGS = f"max_threads = 1, prefer_column_name_to_alias = 1, max_query_size = {64 << 20}"

    def __init__(self, folder: str) -> None:
        import clickhouse_connect

        self._client = clickhouse_connect.get_client(interface="chdb", path=folder, database="audit")
        self._answers = _Answers()
        self._state: Any = None
        self._client.command(f"SET {self.SETTINGS}")
        self._client.command("CREATE DATABASE IF NOT EXISTS attic ENGINE = Atomic")  # nothing else may be in audit

    def answer(self, request: dict[str, Any]) -> Any:
        self._client.ping()  # drains the rest of a failed query
        if "sql" in request:
            found = self._client.query(request["sql"])
            return [dict(zip(found.column_names, row, strict=True)) for row in found.result_rows]
        return self._verify(request)

    def _verify(self, request: dict[str, Any]) -> dict[str, Any]:
        from grantledger.ledger.keys import LogKeys
        from grantledger.verifier.clickhouse_source import ClickHouseEvidence
        from grantledger.verifier.outside import OutsideAnchors, read_outside
        from grantledger.verifier.procedure import verify
        from grantledger.verifier.remembered_heads import RememberedHeads
        from grantledger.verifier.row_reader import ReadLimits

        with ExitStack() as undo:
            for table, query in request["changed"].items():
                self._client.command(f"CREATE TABLE attic.{table} AS audit.{table}")
                undo.callback(self._client.command, f"DROP TABLE attic.{table} SYNC")
                self._client.command(f"INSERT INTO attic.{table} {query}")
            for table in request["changed"]:
                exchange = f"EXCHANGE TABLES audit.{table} AND attic.{table}"
                self._client.command(exchange)
                undo.callback(self._client.command, exchange)
            outside = read_outside(Path(request["anchors"])) if request["anchors"] else OutsideAnchors()
            keys = LogKeys.single(bytes.fromhex(request["key"]))
            client = _Client(self._client, self._answers, request["changed"])
            limits = ReadLimits(*request["read"]) if request["read"] else ReadLimits()
            since = self._state.going_on if request["since"] and self._state else None
            evidence = ClickHouseEvidence(client, request["verify"], limits=limits, since=since)
            report = verify(evidence, keys, outside=outside, remembered=self._state if request["since"] else None)
            if report.sound and not request["since"]:
                known = RememberedHeads(request["verify"])
                self._state = known.remember(report.source, report.heads | report.anchor_heads, report.since)
            return report.as_json()


def main() -> None:
    """Answer one request per line until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engine may print; its output is not an answer
    engine = _Engine(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = {"answer": engine.answer(json.loads(line))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
