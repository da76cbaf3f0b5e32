"""Text from the ledger reaches a terminal only as printable characters, and never as markup."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from grantledger.base.text import printable
from grantledger.cli.errors import fail
from grantledger.cli.output import Column, Output, echo, print_fields, print_table, shortened, text_column
from grantledger.cli.query import print_for_people
from grantledger.cli.shrinking import print_shrunk, shrunk
from grantledger.verifier.report import VerifyReport
from grantledger.verifier.steps import STEPS, Problem

ATTACKS = (
    "[/x]", "[bold red]SOUND[/]", "\x1b[2J\x1b[1;31mSOUND: all", "\x1b]0;title\x07", "\x9b31m", "a\nSOUND: all",
    "a\rSOUND", "\u202egnp.exe", "\u2066hidden\u2069", "zero\u200bwidth\u200d\ufeff", "\x00\x08\x7f",
    "\u2028\u2029\x85", "\U000e0001", ":smile:", "=HYPERLINK(1)", "\\[x]",
)  # fmt: skip
TEXTS = st.sampled_from(ATTACKS) | st.text(max_size=40) | st.tuples(*[st.sampled_from(ATTACKS)] * 2).map("".join)


def assert_plain(out: str, lines: int | None = None) -> None:
    assert all(char.isprintable() or char == "\n" for char in out), ascii(out)
    if lines is not None:
        assert out.count("\n") == lines, ascii(out)


def console() -> Console:
    return Console(file=io.StringIO(), highlight=False, width=2000)


def written(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


@given(TEXTS)
def test_tables_and_fields(text: str) -> None:
    columns = [text_column("a", "a"), Column("b", lambda row: row["a"], shrinks="end")]
    for show in (print_table, print_shrunk):
        on = console()
        show(on, [{"a": text}, {"a": "next"}], columns)
        assert_plain(written(on), 6 if show is print_table else 3)
        assert printable(text).rstrip() in written(on)
    on = console()
    print_fields(on, {"name": text})
    assert_plain(written(on), 1 if text else 0)


PRINTERS: dict[str, Callable[[str], object]] = {
    "an id": lambda text: Output(quiet=True).rows([{"id": text}], identity="id", show=[]),
    "a line": lambda text: echo(shortened(text, 30)),
    "an answer of ClickHouse": lambda text: print_for_people(text.encode("utf-8", "surrogatepass"), " "),
    "a report": lambda text: print("\n".join(report_about(text).as_text())),
}


def report_about(text: str) -> VerifyReport:
    """Return the report of a store in which an attacker chose origin, message and the name of the log."""
    problem = Problem(text, 3, next(iter(STEPS[0].checks)), text)
    return VerifyReport("clickhouse", "test.example", 1, 10, problems=[problem], heads={text: (10, "00")})


@pytest.mark.parametrize("what", PRINTERS)
@given(text=TEXTS)
def test_lines(what: str, text: str) -> None:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        PRINTERS[what](text)
    assert_plain(out.getvalue())
    if what == "a report":
        assert [line for line in out.getvalue().split("\n") if line.startswith("SOUND")] == []


@given(TEXTS)
def test_errors(text: str) -> None:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(typer.Exit):
        patch.setattr("sys.stderr", out)
        fail(f"could not check: {text}")
    assert_plain(out.getvalue())


@given(TEXTS)
def test_escaping_twice_changes_nothing(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    assert printable(text).isprintable() or not text


def test_a_long_text_is_shortened_in_little_time() -> None:
    started = time.process_time()
    assert len(shrunk("x" * 1_000_000, 20)) == 20
    assert time.process_time() - started < 2
