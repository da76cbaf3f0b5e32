"""The cost of redaction per record: the sample records of each tool through its adapter, by level.

Usage: ``python -m benchmarks.redaction FOLDER``, the folder with one folder of records per tool.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from grantledger.producers import session_command
from grantledger.producers.adapters import RecordError, make_adapter
from grantledger.producers.envelopes import ToolRecord
from grantledger.producers.redaction.file import make_redactor
from grantledger.producers.redaction.redactor import LEVELS, Level

from .samples import FILES, records

ROUNDS = 5


EVENTS = 3_000


def main(folder: Path) -> None:
    """Print microseconds of CPU per record, the best of several rounds."""
    print(f"{'µs per record':<14}{'off':>8}{'default':>10}{'strict':>8}")
    _print("our own event", [min(_seconds_of_events(one) for _ in range(ROUNDS)) / EVENTS for one in LEVELS])
    for tool in FILES:
        given = records(tool, folder)
        _print(tool, [min(_seconds(tool, one, given) for _ in range(ROUNDS)) / len(given) for one in LEVELS])


def _print(name: str, costs: list[float]) -> None:
    off, default, strict = (cost * 1e6 for cost in costs)
    print(f"{name:<14}{off:>8.0f}{default:>10.0f}{strict:>8.0f}")


def _seconds_of_events(level: Level) -> float:
    """Return the time for events of our own in which there is nothing to remove."""
    redactor, access = make_redactor(level), {"subject": "alice@example.com", "grant_id": "g-17", "reason": "INC-4711"}
    event = session_command(**access, session_id="s-4", command="psql", args=("-c", "select 1 from orders"))
    began = time.process_time()
    for _ in range(EVENTS if redactor is not None else 0):
        redactor.event(event)
    return time.process_time() - began


def _seconds(tool: str, level: Level, given: list[ToolRecord]) -> float:
    adapter = make_adapter(tool, redactor=make_redactor(level))
    began = time.process_time()
    for record in given:
        with suppress(RecordError):
            adapter.read(record.raw, record.location, record.values)
    return time.process_time() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
