"""Known ways out of a read-only engine, all refused; and statements that people and tools send, all answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.sql_endpoint import SECRET, Owner, post

SUPPORT = Path(__file__).parents[1] / "support"
# 36: a bad value; 60: an unknown table; 62: unreadable text; 73: an unknown format; 164: not a read; 497: not allowed.
REFUSALS = {"36", "60", "62", "73", "164", "497"}


def statements(name: str) -> list[str]:
    lines = (SUPPORT / name).read_text("utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("# ")]


@pytest.fixture(scope="module")
def secret(owner: Owner) -> Path:
    return owner.data_dir / "secret.csv"


def test_there_are_enough_of_them() -> None:
    assert len(statements("sql_escapes.txt")) >= 250
    assert len(statements("sql_accepted.txt")) >= 80


def test_an_escape_is_refused(owner: Owner, secret: Path) -> None:
    for sql in statements("sql_escapes.txt"):
        status, headers, body = post(owner, sql.replace("{secret}", str(secret)))
        assert status >= 400, (sql, body[:200])
        assert headers["X-ClickHouse-Exception-Code"] in REFUSALS, (sql, body)
        assert SECRET.encode() not in body, sql


def test_a_usual_statement_is_answered(owner: Owner) -> None:
    for sql in statements("sql_accepted.txt"):
        status, _, body = post(owner, sql)
        assert status == 200, (sql, body)
