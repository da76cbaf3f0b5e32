"""``sources list`` on terminals of any width: no cell is wrapped, and numbers are for people."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from grantledger.cli.output import Format, Output
from grantledger.cli.source_health import _print, _rate_of

NAME = "kubernetes/production-cluster-of-the-payments-team.eu-central-1"


def source(**fields: Any) -> dict[str, Any]:
    return {
        "name": NAME, "tenant": "default", "state": "heard", "registered": False, "signed": False, "events": 9,
        "last_event_at": datetime.now(UTC) - timedelta(hours=2, minutes=1), "silent_since": None, "unsigned": 0,
        "events_per_hour": 2 / 24, "delay_p50_seconds": 1.21, "delay_p99_seconds": 90.0, "mapped": 1200, "skipped": 3,
        "failed": 0, "rejected": 4, "open_gaps": 1, **fields,
    }  # fmt: skip


def shown(width: int, form: Format = Format.table, **fields: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=25, force_terminal=True, color_system=None)
    _print(Output(form), [source(**fields)], console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [250, 100, 80])
def test_a_source_has_one_line_that_fits(width: int) -> None:
    for fields in ({}, {"tenant": "acme"}, {"state": "silent", "silent_since": datetime.now(UTC) - timedelta(days=3)}):
        lines = shown(width, **fields)
        assert max(map(len, lines)) <= width
        [line] = [line for line in lines if "kube" in line]
        cells = line.replace("│", " ").split()
        assert "0.1" in cells and "4" in cells
        assert (NAME in line) == (width == 250) and ("not checked" in line) == (width == 250)
        assert ("…" in cells[0]) == (width < 250)
        if width < 250:
            assert "2 h 1 min ago" in line and "4 rejected" in line and lines[-1] == "-o wide has all columns."


def test_a_narrow_terminal_gets_a_paragraph_and_wide_gets_everything() -> None:
    assert shown(40) == [f"{NAME}: heard, last event 2 h 1 min ago, 0.1 per hour, 4 rejected, 1 gap"]
    [line] = [line for line in shown(40, Format.wide) if NAME in line]
    assert "not checked" in line and "1.2 s (1 min)" in line and "1,200" in line


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0"), (0.042, "<0.1"), (0.083, "0.1"), (0.17, "0.2"), (3, "3"), (9.96, "10"), (1234.5, "1,234")],
)
def test_a_rate_has_few_digits(rate: float, text: str) -> None:
    assert _rate_of({"events_per_hour": rate}) == text
